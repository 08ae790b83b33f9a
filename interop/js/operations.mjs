// What a test asks of official XMTP clients, whichever of the SDKs they come from and
// wherever they run: agent.mjs hosts them on Node.js, page.mjs in a browser.
//
// A request is one line of JSON, and so is each answer and each event of a stream:
//
//   {"id":1,"op":"create","client":"alice","key":"0x…","options":{…}}   → client facts
//   {"id":2,"op":"call","on":"alice","path":"conversations.sync","args":[]}
//   {"id":3,"op":"stream","on":"alice","path":"conversations.streamAllMessages","options":{…}}
//   {"id":1,"result":…} | {"id":1,"error":{"name":…,"message":…}} | {"stream":3,"event":…,"value":…}
//
// A stream goes by the id of the request that opened it. Arguments are plain JSON, with
// {"$bytes":base64}, {"$signer":key,"contract":{…}}, {"$bigint":decimal} and {"$ref":name} for what JSON can't say. Answers
// hold bytes as base64 and bigints as decimal strings.

import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { serializeErc6492Signature, toBytes } from "viem";

function toBase64(bytes) {
  let text = "";
  const most = 0x8000; // arguments of one call
  for (let i = 0; i < bytes.length; i += most) {
    text += String.fromCharCode(...bytes.subarray(i, i + most));
  }
  return btoa(text);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// An account that is a key, or a contract that a key owns. The signature of a contract
// that is yet to be created says how that is done.
function signerOf(key, contract) {
  const account = privateKeyToAccount(key);
  const address = contract?.address ?? account.address.toLowerCase();
  return {
    type: contract ? "SCW" : "EOA",
    getIdentifier: () => ({ identifier: address, identifierKind: 0 }),
    getChainId: () => BigInt(contract.chainId),
    signMessage: async (message) => {
      const signature = await account.signMessage({ message });
      return toBytes(
        contract?.factory
          ? serializeErc6492Signature({ address: contract.factory, data: contract.order, signature })
          : signature,
      );
    },
  };
}

// The getters of a class instance, which JSON.stringify does not see.
function getters(value) {
  const names = [];
  for (
    let proto = Object.getPrototypeOf(value);
    proto && proto !== Object.prototype;
    proto = Object.getPrototypeOf(proto)
  ) {
    for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(proto))) {
      if (property.get) names.push(name);
    }
  }
  return names;
}

// Returns a function that answers requests with an SDK, and tells by write, which takes a line.
export function responder(sdk, about, write) {
  // Everything that a request can name: clients, and results kept with "as".
  const objects = new Map();
  const streams = new Map();
  const tell = (line) => write(JSON.stringify(line));

  function decode(value) {
    if (Array.isArray(value)) return value.map(decode);
    if (value === null || typeof value !== "object") return value;
    if ("$bytes" in value) return fromBase64(value.$bytes);
    if ("$signer" in value) return signerOf(value.$signer, value.contract);
    if ("$bigint" in value) return BigInt(value.$bigint);
    if ("$ref" in value) return named(value.$ref);
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decode(v)]));
  }

  function encode(value) {
    if (value === undefined || value === null) return null;
    if (typeof value === "bigint") return value.toString();
    if (typeof value !== "object") return value;
    if (value instanceof Uint8Array) return toBase64(value);
    if (value instanceof Date) return value.toISOString();
    if (value instanceof Map) return encode(Object.fromEntries(value));
    if (Array.isArray(value)) return value.map(encode);
    const fields = {};
    for (const name of new Set([...Object.keys(value), ...getters(value)])) {
      const field = value[name];
      if (typeof field !== "function" && field !== undefined) fields[name] = encode(field);
    }
    if (value instanceof sdk.Dm) fields.type = "dm";
    if (value instanceof sdk.Group) fields.type = "group";
    return fields;
  }

  function named(name) {
    const object = objects.get(name);
    if (object === undefined) throw new Error(`nothing is called ${name}`);
    return object;
  }

  // The object that a request is about: a conversation of a client, a named object, or
  // the SDK module itself.
  async function target({ on, conversation }) {
    if (on === undefined) return sdk;
    const object = named(on);
    if (conversation === undefined) return object;
    const found = await object.conversations.getConversationById(conversation);
    if (found === undefined) throw new Error(`${on} has no conversation ${conversation}`);
    return found;
  }

  async function resolve(request) {
    const names = request.path.split(".");
    let owner = await target(request);
    for (const name of names.slice(0, -1)) owner = owner[name];
    return [owner, owner[names.at(-1)]];
  }

  async function keep(name, client) {
    objects.set(name, client);
    const { isRegistered } = client; // in browsers it is a call
    return {
      inboxId: client.inboxId,
      installationId: client.installationId,
      isRegistered: typeof isRegistered === "function" ? await client.isRegistered() : isRegistered,
    };
  }

  const operations = {
    hello: () => about,

    wallet: ({ key = generatePrivateKey() }) => ({
      key,
      address: privateKeyToAccount(key).address.toLowerCase(),
    }),

    create: async ({ client, key, contract, options }) =>
      keep(client, await sdk.Client.create(signerOf(key, contract), decode(options))),

    build: async ({ client, address, kind = 0, options }) =>
      keep(client, await sdk.Client.build({ identifier: address, identifierKind: kind }, decode(options))),

    async call(request) {
      const [owner, member] = await resolve(request);
      const args = (request.args ?? []).map(decode);
      const result = typeof member === "function" ? await member.apply(owner, args) : member;
      if (request.as !== undefined) {
        objects.set(request.as, result);
        return null;
      }
      return result;
    },

    // Queues texts and publishes them together, as an app that was offline does.
    async sendAll(request) {
      const conversation = await target(request);
      const ids = [];
      for (const text of request.texts) {
        const content = await sdk.encodeText(text);
        ids.push(await conversation.send(content, { shouldPush: true, optimistic: true }));
      }
      await conversation.publishMessages();
      return ids;
    },

    async stream(request) {
      const [owner, open] = await resolve(request);
      const event = (name) => (value) => tell({ stream: request.id, event: name, value: encode(value) });
      const stream = await open.call(owner, {
        ...decode(request.options ?? {}),
        onValue: event("value"),
        onError: (error) => tell({ stream: request.id, event: "error", value: error.message }),
        onFail: event("fail"),
        onRetry: event("retry"),
        onRestart: event("restart"),
        onEnd: event("end"),
      });
      streams.set(request.id, stream);
      return { stream: request.id };
    },

    async end({ stream }) {
      await streams.get(stream).end();
      streams.delete(stream);
      return null;
    },

    // Between two tests: nothing is known by a name any more.
    async forget() {
      objects.clear();
      const open = [...streams.values()];
      streams.clear();
      await Promise.all(open.map((stream) => stream.end()));
      return null;
    },
  };

  return async function answer(line) {
    const request = JSON.parse(line);
    try {
      const operation = operations[request.op];
      if (operation === undefined) throw new Error(`no operation ${request.op}`);
      tell({ id: request.id, result: encode(await operation(request)) });
    } catch (error) {
      tell({ id: request.id, error: { name: error.name, message: String(error.message ?? error) } });
    }
  };
}
