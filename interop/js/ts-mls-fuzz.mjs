// Hosts members of MLS groups in ts-mls for the Go tests of interop/differential.
//
// Reads one request a line, {"id", "op", ...}, and answers {"id", "result"} or {"id",
// "error"}. States are kept under names that the driver gives; bytes are base64. A message
// is tried on a state without changing it, or taken. What ts-mls throws at a message is
// its verdict, not an error of this program.

import { createInterface } from "node:readline";
import {
  createApplicationMessage, createCommit, createGroupInfoWithExternalPubAndRatchetTree, createProposal,
  decodeGroupState, decodeMlsMessage, encodeGroupState, encodeMlsMessage, generateKeyPackageWithKey,
  getCiphersuiteImpl, joinGroup, joinGroupExternal, makePskIndex, processPrivateMessage, processPublicMessage,
} from "ts-mls";
import { ciphersuites, getCiphersuiteFromId } from "ts-mls/crypto/ciphersuite.js";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { encodeGroupContext } from "ts-mls/groupContext.js";
import { decodeKeyPackage, encodeKeyPackage } from "ts-mls/keyPackage.js";
import { decryptSenderData, encryptSenderData, encodePrivateContentAAD } from "ts-mls/privateMessage.js";
import { decodeProposal } from "ts-mls/proposal.js";
import { decodeRatchetTree, encodeRatchetTree } from "ts-mls/ratchetTree.js";
import { ratchetToGeneration } from "ts-mls/secretTree.js";

const states = new Map();
const suites = new Map();
const bytes = (text) => new Uint8Array(Buffer.from(text ?? "", "base64"));
const text = (data) => Buffer.from(data).toString("base64");

// The windows of our own default, so that late messages are judged by the same measure.
const config = {
  ...defaultClientConfig,
  keyRetentionConfig: { retainKeysForGenerations: 5, retainKeysForEpochs: 3, maximumForwardRatchetSteps: 1000 },
};

async function suite(id) {
  if (!suites.has(id)) suites.set(id, await getCiphersuiteImpl(getCiphersuiteFromId(id)));
  return suites.get(id);
}

class Refused extends Error {}

// whole decodes all of data: ts-mls tells how much it read and leaves the rest to callers.
function whole(decode, data, what) {
  const decoded = decode(data, 0);
  if (decoded === undefined) throw new Refused(what + " does not decode");
  if (decoded[1] !== data.length) throw new Refused("bytes after the " + what);
  return decoded[0];
}

function message(data, ...formats) {
  const m = whole(decodeMlsMessage, data, "message");
  if (m.version !== "mls10") throw new Refused("version " + m.version);
  if (!formats.includes(m.wireformat)) throw new Refused("unexpected " + m.wireformat);
  return m;
}

// verdict runs f and tells what came of it.
async function verdict(f) {
  try {
    return { ok: true, ...(await f()) };
  } catch (e) {
    return { ok: false, error: (e instanceof Refused ? "" : (e?.name ?? "") + ": ") + (e?.message ?? String(e)) };
  }
}

const about = (state) => ({
  epoch: String(BigInt.asUintN(64, state.groupContext.epoch)), // as ts-mls encodes it
  authenticator: text(state.keySchedule.epochAuthenticator),
  treeHash: text(state.groupContext.treeHash),
  context: text(encodeGroupContext(state.groupContext)),
  active: state.groupActiveState.kind === "active",
  removed: state.groupActiveState.kind === "removedFromGroup",
  leaf: state.privatePath.leafIndex,
});

async function receive(state, data, psks, cs) {
  const m = message(data, "mls_public_message", "mls_private_message");
  const index = makePskIndex(state, psks ?? {});
  if (m.wireformat === "mls_private_message") {
    const r = await processPrivateMessage(state, m.privateMessage, index, cs);
    if (r.kind === "applicationMessage") return { state: r.newState, kind: "application", text: text(r.message) };
    return { state: r.newState, kind: m.privateMessage.contentType };
  }
  const r = await processPublicMessage(state, m.publicMessage, index, cs);
  return { state: r.newState, kind: m.publicMessage.content.contentType };
}

function privateKeys(r) {
  return { initPrivateKey: bytes(r.init), hpkePrivateKey: bytes(r.leaf), signaturePrivateKey: bytes(r.signature) };
}

function tree(r) {
  return r.tree ? whole(decodeRatchetTree, bytes(r.tree), "ratchet tree") : undefined;
}

async function join(r, data, cs) {
  const m = message(data, "mls_welcome");
  const kp = whole(decodeKeyPackage, bytes(r.keyPackage), "key package");
  const psks = makePskIndex(undefined, secrets(r));
  return joinGroup(m.welcome, kp, privateKeys(r), psks, cs, tree(r), undefined, config);
}

async function joinExternal(r, data, cs) {
  const m = message(data, "mls_group_info");
  const kp = whole(decodeKeyPackage, bytes(r.keyPackage), "key package");
  const out = await joinGroupExternal(m.groupInfo, kp, privateKeys(r), r.resync === true, cs, tree(r), config);
  return [out.newState, encodeMlsMessage({ version: "mls10", wireformat: "mls_public_message", publicMessage: out.publicMessage })];
}

// secrets are the external PSKs by the name under which makePskIndex looks for them.
const secrets = (r) => Object.fromEntries((r.psks ?? []).map(({ id, secret }) => [id, bytes(secret)]));

// each tries several messages side by side: most of the time goes by waiting for WebCrypto.
async function each(list, f) {
  const results = new Array(list.length);
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < list.length; i = next++) results[i] = await verdict(() => f(bytes(list[i])));
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return results;
}

const operations = {
  // A key package of ts-mls for a signature key that the driver made.
  async keyPackage(r, cs) {
    const credential = { credentialType: "basic", identity: bytes(r.name) };
    const name = Object.keys(ciphersuites).find((n) => ciphersuites[n] === r.suite);
    const capabilities = {
      versions: ["mls10"], ciphersuites: [name], credentials: ["basic"],
      extensions: r.extensions ?? [], proposals: r.proposals ?? [],
    };
    const now = BigInt(Math.floor(Date.now() / 1000));
    const lifetime = { notBefore: now - 3600n, notAfter: now + 86400n };
    const keys = { signKey: bytes(r.signature), publicKey: bytes(r.public) };
    const made = await generateKeyPackageWithKey(credential, capabilities, lifetime, [], keys, cs);
    return {
      keyPackage: text(encodeKeyPackage(made.publicPackage)),
      init: text(made.privatePackage.initPrivateKey),
      leaf: text(made.privatePackage.hpkePrivateKey),
    };
  },

  async join(r, cs) {
    return verdict(async () => {
      const state = await join(r, bytes(r.message), cs);
      states.set(r.as, state);
      return about(state);
    });
  },

  tryJoin: (r, cs) => each(r.messages, async (data) => about(await join(r, data, cs))),

  async external(r, cs) {
    return verdict(async () => {
      const [state, commit] = await joinExternal(r, bytes(r.message), cs);
      states.set(r.as, state);
      return { ...about(state), message: text(commit) };
    });
  },

  tryExternal: (r, cs) => each(r.messages, async (data) => {
    const [state, commit] = await joinExternal(r, data, cs);
    return { ...about(state), message: text(commit) };
  }),

  try: (r, cs) => each(r.messages, async (data) => {
    const { state, ...result } = await receive(states.get(r.on), data, secrets(r), cs);
    return { ...about(state), ...result };
  }),

  async take(r, cs) {
    return verdict(async () => {
      const { state, ...result } = await receive(states.get(r.on), bytes(r.message), secrets(r), cs);
      states.set(r.on, state);
      return { ...about(state), ...result };
    });
  },

  async drop(r) {
    states.delete(r.on);
    return {};
  },

  // A state as bytes, for the corpus, and back.
  save: async (r) => ({ message: text(encodeGroupState(states.get(r.on))) }),

  async load(r) {
    states.set(r.as, { ...whole(decodeGroupState, bytes(r.message), "state"), clientConfig: config });
    return {};
  },

  async commit(r, cs) {
    return verdict(async () => {
      const state = states.get(r.on);
      const proposals = (r.messages ?? []).map((p) => whole(decodeProposal, bytes(p), "proposal"));
      const made = await createCommit(
        { state, cipherSuite: cs, pskIndex: makePskIndex(state, secrets(r)) },
        {
          wireAsPublicMessage: r.public === true, extraProposals: proposals, ratchetTreeExtension: r.treeInside === true,
          authenticatedData: bytes(r.authenticatedData),
        },
      );
      states.set(r.on, made.newState);
      const welcome = made.welcome && encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome: made.welcome });
      return {
        ...about(made.newState),
        message: text(encodeMlsMessage(made.commit)),
        welcome: welcome && text(welcome),
        tree: text(encodeRatchetTree(made.newState.ratchetTree)),
      };
    });
  },

  async propose(r, cs) {
    return verdict(async () => {
      const p = whole(decodeProposal, bytes(r.message), "proposal");
      const made = await createProposal(states.get(r.on), r.public === true, p, cs, bytes(r.authenticatedData));
      states.set(r.on, made.newState);
      return { message: text(encodeMlsMessage(made.message)) };
    });
  },

  async encrypt(r, cs) {
    return verdict(async () => {
      const made = await createApplicationMessage(states.get(r.on), bytes(r.message), cs, bytes(r.authenticatedData));
      states.set(r.on, made.newState);
      return { message: text(encodeMlsMessage({ version: "mls10", wireformat: "mls_private_message", privateMessage: made.privateMessage })) };
    });
  },

  async groupInfo(r, cs) {
    const groupInfo = await createGroupInfoWithExternalPubAndRatchetTree(states.get(r.on), [], cs);
    return { message: text(encodeMlsMessage({ version: "mls10", wireformat: "mls_group_info", groupInfo })) };
  },

  // The secrets of an epoch, for the forger.
  async secrets(r) {
    const s = states.get(r.on);
    return {
      init: text(s.keySchedule.initSecret), membership: text(s.keySchedule.membershipKey),
      external: text(s.keySchedule.externalSecret), resumption: text(s.keySchedule.resumptionPsk),
      senderData: text(s.keySchedule.senderDataSecret), confirmationTag: text(s.confirmationTag),
      handshakes: s.secretTree.flatMap(({ handshake }, node) =>
        node % 2 ? [] : [{ leaf: node / 2, generation: handshake.generation, secret: text(handshake.secret) }]),
    };
  },

  // Opens a PrivateMessage, and seals other contents under the same key in its place.
  async open(r, cs) {
    const { from, m, key, nonce } = await keyOf(states.get(r.on), bytes(r.message), cs);
    const plain = await cs.hpke.decryptAead(key, nonce, encodePrivateContentAAD(m), m.ciphertext);
    return { leaf: from.leafIndex, generation: from.generation, text: text(plain) };
  },

  async seal(r, cs) {
    const state = states.get(r.on);
    const { from, m, key, nonce } = await keyOf(state, bytes(r.message), cs);
    const sealed = [];
    for (const plain of r.messages) {
      const ciphertext = await cs.hpke.encryptAead(key, nonce, encodePrivateContentAAD(m), bytes(plain));
      const sender = { ...from, ...(r.sender ?? {}) };
      const encryptedSenderData = await encryptSenderData(state.keySchedule.senderDataSecret, sender, m, ciphertext, cs);
      sealed.push(text(encodeMlsMessage({
        version: "mls10", wireformat: "mls_private_message", privateMessage: { ...m, ciphertext, encryptedSenderData },
      })));
    }
    return { messages: sealed };
  },
};

async function keyOf(state, data, cs) {
  const m = message(data, "mls_private_message").privateMessage;
  const from = await decryptSenderData(m, state.keySchedule.senderDataSecret, cs);
  return { from, m, ...(await ratchetToGeneration(state.secretTree, from, m.contentType, config.keyRetentionConfig, cs)) };
}

async function answer(line) {
  const r = JSON.parse(line);
  try {
    const result = await operations[r.op](r, await suite(r.suite));
    return { id: r.id, result };
  } catch (e) {
    return { id: r.id, error: { name: r.op, message: String(e?.stack ?? e) } };
  }
}

// ts-mls checks the Adds of a commit side by side; when two are bad, one error reaches its
// caller and the other would end the process.
globalThis.process.on("unhandledRejection", () => {});

const lines = createInterface({ input: globalThis.process.stdin });
for await (const line of lines) globalThis.process.stdout.write(JSON.stringify(await answer(line)) + "\n");
