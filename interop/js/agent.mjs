// Drives official XMTP clients for the Go tests of this module, on Node.js.
//
// It reads the requests that operations.mjs describes from standard input and writes
// the answers to standard output; nothing else is written there. The SDK is the package
// named by the first argument, so that one program serves every version that
// package.json installs side by side; the second is the URL of the node.

import { createInterface } from "node:readline";
import { responder } from "./operations.mjs";

const [sdkName, nodeURL] = process.argv.slice(2);
const sdk = await import(sdkName);
// Version 5 looks inboxes up where its local environment is, whatever apiUrl says.
sdk.ApiUrls.local = nodeURL;

const about = { sdk: sdkName, node: process.version, pid: process.pid };
const answer = responder(sdk, about, (line) => process.stdout.write(line + "\n"));

process.on("unhandledRejection", (reason) => console.error("unhandled rejection:", reason));

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(line));
// The driver has gone: a client's native threads would keep the process alive.
lines.on("close", () => process.exit(0));
