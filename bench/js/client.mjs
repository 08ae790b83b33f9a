// Hosts official clients for "go run ./bench client": the counterpart of clientserver.go,
// which has the same requests and answers, described there. Times are taken here, around
// the SDK's call alone, as they are taken there.
//
// The first argument is the folder whose node_modules has the SDK.

import { createInterface } from "node:readline";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = process.argv[2];
const load = (...path) => import(pathToFileURL(join(modules, "node_modules", ...path)));
const sdk = await load("sdk-baseline", "dist", "index.js");
const { privateKeyToAccount } = await load("viem", "_esm", "accounts", "index.js");
const { toBytes } = await load("viem", "_esm", "index.js");

const clients = new Map();
const streams = new Map();

const nanoseconds = (milliseconds) => Math.round(milliseconds * 1e6);

// The time that work takes, and what it returns.
async function timed(work) {
  const begin = performance.now();
  const result = await work();
  return [nanoseconds(performance.now() - begin), result];
}

function named(name) {
  const client = clients.get(name);
  if (client === undefined) throw new Error(`no client is called ${name}`);
  return client;
}

async function conversationOf(client, id) {
  const found = await named(client).conversations.getConversationById(id);
  if (found === undefined) throw new Error(`${client} has no conversation ${id}`);
  return found;
}

// Texts differ, so that a lost or doubled one shows.
const textOf = ({ tag, size }, i) => `${tag} ${i} `.padEnd(size ?? 0, ".");

const onlyTexts = { contentTypes: [sdk.ContentType.Text] };

const operations = {
  hello: () => ({}),

  async open({ client, key, database, url }) {
    const account = privateKeyToAccount(`0x${key}`);
    const signer = {
      type: "EOA",
      getIdentifier: () => ({ identifier: account.address.toLowerCase(), identifierKind: 0 }),
      signMessage: async (message) => toBytes(await account.signMessage({ message })),
    };
    const dbEncryptionKey = Uint8Array.from(Buffer.from(key, "hex"));
    const [took, opened] = await timed(() =>
      sdk.Client.create(signer, { env: "local", apiUrl: url, dbPath: database, dbEncryptionKey }),
    );
    clients.set(client, opened);
    return { took: [took], inbox: opened.inboxId };
  },

  async dm({ client, users }) {
    const [took, dm] = await timed(() => named(client).conversations.createDm(users[0]));
    return { took: [took], id: dm.id };
  },

  async group({ client, users }) {
    const [took, group] = await timed(() => named(client).conversations.createGroup(users));
    return { took: [took], id: group.id, count: (await group.members()).length };
  },

  async add({ client, conversations, users }) {
    const group = await conversationOf(client, conversations[0]);
    const [took] = await timed(() => group.addMembers(users));
    return { took: [took], count: (await group.members()).length };
  },

  async remove({ client, conversations, users }) {
    const group = await conversationOf(client, conversations[0]);
    const [took] = await timed(() => group.removeMembers(users));
    return { took: [took], count: (await group.members()).length };
  },

  async members({ client, conversations }) {
    const group = await conversationOf(client, conversations[0]);
    return { count: (await group.members()).length };
  },

  async send(request) {
    const { client, conversations, count, workers = 1 } = request;
    const found = await Promise.all(conversations.map((id) => conversationOf(client, id)));
    const each = [];
    let next = 0;
    const worker = async (w) => {
      while (next < count) {
        const i = next++;
        const [took] = await timed(() => found[w % found.length].sendText(textOf(request, i)));
        each.push(took);
      }
    };
    const [all] = await timed(() => Promise.all(Array.from({ length: workers }, (_, w) => worker(w))));
    return { took: each, all };
  },

  async receipt({ client, conversations }) {
    const conversation = await conversationOf(client, conversations[0]);
    const [took] = await timed(() => conversation.sendReadReceipt());
    return { took: [took] };
  },

  async publish(request) {
    const conversation = await conversationOf(request.client, request.conversations[0]);
    const [all] = await timed(async () => {
      for (let i = 0; i < request.count; i++) await conversation.sendText(textOf(request, i), true);
      await conversation.publishMessages();
    });
    return { all };
  },

  async sync({ client, conversations }) {
    const conversation = await conversationOf(client, conversations[0]);
    const [took] = await timed(() => conversation.sync());
    return { took: [took] };
  },

  async join({ client }) {
    const [took] = await timed(() => named(client).conversations.sync());
    return { took: [took], count: (await named(client).conversations.list()).length };
  },

  async syncAll({ client }) {
    const [took] = await timed(() => named(client).conversations.syncAll());
    return { took: [took] };
  },

  async list({ client }) {
    const [took, list] = await timed(() => named(client).conversations.list());
    return { took: [took], count: list.length };
  },

  async count({ client, conversations }) {
    const list =
      conversations?.length > 0
        ? await Promise.all(conversations.map((id) => conversationOf(client, id)))
        : await named(client).conversations.list();
    let count = 0;
    for (const conversation of list) count += await conversation.countMessages(onlyTexts);
    return { count };
  },

  async stream({ client }) {
    const texts = { at: [], late: [], seen: new Set(), wake: () => {} };
    streams.set(client, texts);
    const me = named(client).inboxId;
    await named(client).conversations.streamAllMessages({
      onValue: (message) => {
        if (typeof message.content !== "string" || message.senderInboxId === me) return;
        const at = nanoseconds(performance.timeOrigin + performance.now());
        texts.at.push(at);
        texts.late.push(at - Number(message.sentAtNs));
        texts.seen.add(message.id);
        texts.wake();
      },
      onError: () => {},
    });
    return {};
  },

  // Waits for so many texts on the stream, but no longer, and hands them over.
  async streamed({ client, count, wait }) {
    const texts = streams.get(client);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait / 1e6);
      texts.wake = () => {
        if (texts.seen.size < count) return;
        clearTimeout(timer);
        resolve();
      };
      texts.wake();
    });
    const { at, late, seen } = texts;
    Object.assign(texts, { at: [], late: [], seen: new Set(), wake: () => {} });
    return { at, took: late, count: seen.size };
  },
};

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await operations[request.op](request);
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(JSON.stringify({ ...answer, request: request.request }) + "\n");
});
// A client's native threads would keep the process alive.
lines.on("close", () => process.exit(0));
