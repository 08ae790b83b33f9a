// Drives official XMTP clients for the Go tests of this module, in a browser.
//
// It takes the place of agent.mjs: the same requests and answers, see operations.mjs.
// Each client has a tab of its own in one profile of the browser, and there an origin of
// its own, because the SDK's storage serves one connection for each origin. All origins
// are of one site, so that the tabs share what a browser shares: connections above all.
//
// Two more operations are about tabs: {"op":"reload","client":"alice"} and
// {"op":"screenshot","path":"folder"}, which takes one picture of each tab.
//
// Arguments: the SDK's package, the URL of the node, the folder of the browser's
// profile, the path of the browser.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [sdkName, nodeURL, profile, executablePath] = process.argv.slice(2);

// The SDK's files, bundled because a browser can't find packages by their names, and
// under the paths at which the SDK looks for them.
async function bundle(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    absWorkingDir: import.meta.dirname,
    alias: { sdk: sdkName },
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "error",
  });
  return outputFiles[0].contents;
}

async function site() {
  const installed = join(import.meta.dirname, "node_modules", sdkName);
  const bindings = createRequire(join(installed, "package.json")).resolve("@xmtp/wasm-bindings");
  const [page, worker, wasm] = await Promise.all([
    bundle("page.mjs"),
    bundle(join(installed, "dist", "workers", "client.js")),
    readFile(join(bindings, "..", "bindings_wasm_bg.wasm")),
  ]);
  const html = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script type="module" src="/page.js"></script>';
  return new Map([
    ["/", ["text/html", html]],
    ["/page.js", ["text/javascript", page]],
    ["/workers/client", ["text/javascript", worker]],
    ["/bindings_wasm_bg.wasm", ["application/wasm", wasm]],
    ["/workers/bindings_wasm_bg.wasm", ["application/wasm", wasm]],
  ]);
}

function serve(files) {
  const server = createServer((request, response) => {
    const [type, body] = files.get(request.url) ?? [];
    if (body === undefined) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": type }).end(body);
  });
  return new Promise((listening) => {
    server.listen(0, "127.0.0.1", () => listening(server.address().port));
  });
}

const write = (line) => process.stdout.write(line + "\n");
const [browser, port] = await Promise.all([
  chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    ignoreHTTPSErrors: true, // the node's certificate is the test's
  }),
  site().then(serve),
]);

const tabs = new Map(); // a promise of the page, by the client's name
const places = new Map(); // the name of the tab, by what lives there: an object, a stream

function tab(name) {
  if (!tabs.has(name)) tabs.set(name, open(name));
  return tabs.get(name);
}

async function open(name) {
  const page = await browser.newPage();
  page.on("console", (message) => console.error(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => console.error(`${name}: uncaught:`, error));
  page.on("crash", () => console.error(`${name}: crashed`));
  await page.exposeFunction("tell", write);
  await page.goto(`http://${name}.app.localhost:${port}/`);
  return page;
}

const operations = {
  async reload({ client }) {
    await (await tab(client)).reload();
  },

  async screenshot({ path }) {
    for (const [name, page] of tabs) {
      await (await page).screenshot({ path: join(path, name + ".png") });
    }
  },
};

async function handle(line) {
  const request = JSON.parse(line);
  const { id, op } = request;
  try {
    if (op in operations) {
      await operations[op](request);
      write(JSON.stringify({ id, result: null }));
      return;
    }
    const object = request.client ?? request.on ?? request.stream;
    const name = places.get(object) ?? request.client ?? request.on ?? "any";
    if (op === "stream") places.set(id, name);
    if (request.as !== undefined) places.set(request.as, name);
    await (await tab(name)).evaluate((text) => window.ask(text), line);
  } catch (error) {
    write(JSON.stringify({ id, error: { name: error.name, message: error.message } }));
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void handle(line));
lines.on("close", async () => {
  await browser.close();
  process.exit(0);
});
