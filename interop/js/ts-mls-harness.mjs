// A server for the MLS working group's harness around ts-mls, for Go's tests in
// ../mlsharness. The argument is the address to listen on; the one that it got is the
// only line on standard output. It ends with its standard input.
//
// What ts-mls can't do is UNIMPLEMENTED, with the reason. Where it can be had right from
// outside, this program has it right, and says so.

import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import { p256, p384, p521 } from "@noble/curves/nist.js";
import * as mls from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { createGroupInfo } from "ts-mls/createCommit.js";
import { decodeRatchetTree, encodeRatchetTree } from "ts-mls/ratchetTree.js";

const suiteNumbers = [1, 2, 3, 5, 7];
const suiteNames = new Map(Object.entries(mls.ciphersuites).map(([name, number]) => [number, name]));
const extensionNames = new Map(Object.entries(mls.defaultExtensionTypes).map(([name, number]) => [number, name]));

class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.name = "harness";
    this.code = code;
  }
}
const missing = (what) => new Refusal(grpc.status.UNIMPLEMENTED, "ts-mls " + what);
const invalid = (what) => new Refusal(grpc.status.INVALID_ARGUMENT, what);

const implementations = new Map();
async function implementation(number) {
  const name = suiteNames.get(number);
  if (!suiteNumbers.includes(number)) throw invalid(`no cipher suite ${number}`);
  if (!implementations.has(name)) {
    implementations.set(name, await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(name)));
  }
  return implementations.get(name);
}

// Actors are the protocol's transactions and states; signers its external signers.
let last = 0;
const actors = new Map();
const signers = new Map();

function add(map, value) {
  map.set(++last, value);
  return last;
}

function get(map, id) {
  if (!map.has(id)) throw new Refusal(grpc.status.NOT_FOUND, `nothing has the id ${id}`);
  return map.get(id);
}

const equal = (a, b) => Buffer.compare(a, b) === 0;
const identityOf = (leaf) => leaf.credential.identity;

// The same client is who has the same identity: each actor has a signature key of its own.
const clientConfig = {
  ...defaultClientConfig,
  keyPackageEqualityConfig: {
    compareKeyPackages: (a, b) => equal(identityOf(a.leafNode), identityOf(b.leafNode)),
    compareKeyPackageToLeafNode: (a, b) => equal(identityOf(a.leafNode), identityOf(b)),
  },
};

// signatureKeys are ts-mls's, but for ECDSA with the public key uncompressed (§5.1.1).
const curves = new Map([[2, p256], [5, p521], [7, p384]]);
async function signatureKeys(suiteNumber, cs) {
  const keys = await cs.signature.keygen();
  const curve = curves.get(suiteNumber);
  return curve ? { ...keys, publicKey: curve.Point.fromBytes(keys.publicKey).toBytes(false) } : keys;
}

async function newActor(suiteNumber, identity, encrypts) {
  const cs = await implementation(suiteNumber);
  const credential = { credentialType: "basic", identity };
  const signing = await signatureKeys(suiteNumber, cs);
  const keys = await mls.generateKeyPackageWithKey(credential, mls.defaultCapabilities(), mls.defaultLifetime, [], signing, cs);
  return { cs, identity, keys, encrypts, psks: {}, seen: new Set() };
}

const wrap = (wireformat, field, value) => mls.encodeMlsMessage({ version: "mls10", wireformat, [field]: value });
const wrapKeyPackage = (actor) => wrap("mls_key_package", "keyPackage", actor.keys.publicPackage);

function unwrap(bytes, ...wireformats) {
  const [message, end] = mls.decodeMlsMessage(bytes, 0) ?? [];
  if (message === undefined || end !== bytes.length) throw invalid("not an MLSMessage");
  if (!wireformats.includes(message.wireformat)) throw invalid(`wire format is ${message.wireformat}`);
  return message;
}
const unwrapKeyPackage = (bytes) => unwrap(bytes, "mls_key_package").keyPackage;
const unwrapGroupInfo = (bytes) => unwrap(bytes, "mls_group_info").groupInfo;
const unwrapWelcome = (bytes) => unwrap(bytes, "mls_welcome").welcome;

function tree(bytes) {
  if (bytes.length === 0) return undefined;
  const [nodes, length] = decodeRatchetTree(bytes, 0) ?? [];
  if (length !== bytes.length) throw invalid("not a ratchet tree");
  return nodes;
}

const suiteOf = (groupInfo) => mls.ciphersuites[groupInfo.groupContext.cipherSuite];
const extension = (e) => ({ extensionType: extensionNames.get(e.extension_type) ?? e.extension_type, extensionData: e.extension_data });
const pskIndex = (actor) => mls.makePskIndex(actor.state, actor.psks);
const authenticator = (state) => state.keySchedule.epochAuthenticator;

function describe(d, cs, groupContext, nodes) {
  const nonce = () => cs.rng.randomBytes(cs.kdf.size);
  const kind = Buffer.from(d.proposal_type).toString();
  switch (kind) {
    case "add":
      return { proposalType: "add", add: { keyPackage: unwrapKeyPackage(d.key_package) } };
    case "remove": {
      const node = nodes.findIndex((n) => n?.nodeType === "leaf" && equal(identityOf(n.leaf), d.removed_id));
      if (node < 0) throw invalid("who is to be removed is no member");
      return { proposalType: "remove", remove: { removed: node / 2 } };
    }
    case "externalPSK":
      return { proposalType: "psk", psk: { preSharedKeyId: { psktype: "external", pskId: d.psk_id, pskNonce: nonce() } } };
    case "resumptionPSK":
      return {
        proposalType: "psk",
        psk: {
          preSharedKeyId: {
            psktype: "resumption",
            usage: "application",
            pskGroupId: groupContext.groupId,
            pskEpoch: BigInt(d.epoch_id),
            pskNonce: nonce(),
          },
        },
      };
    case "groupContextExtensions":
      return { proposalType: "group_context_extensions", groupContextExtensions: { extensions: d.extensions.map(extension) } };
    case "reinit":
      return {
        proposalType: "reinit",
        reinit: {
          groupId: d.group_id,
          version: "mls10",
          cipherSuite: suiteNames.get(d.cipher_suite),
          extensions: d.extensions.map(extension),
        },
      };
  }
  throw invalid(`unknown type of proposal ${kind}`);
}

async function propose(actor, proposal) {
  const made = await mls.createProposal(actor.state, !actor.encrypts, proposal, actor.cs);
  const message = mls.encodeMlsMessage(made.message);
  actor.state = made.newState;
  actor.seen.add(Buffer.from(message).toString("hex"));
  return { proposal: message };
}

const proposing = (kind) => (r) => {
  const actor = get(actors, r.state_id);
  return propose(actor, describe({ ...r, proposal_type: Buffer.from(kind) }, actor.cs, actor.state.groupContext, actor.state.ratchetTree));
};

async function process(actor, bytes) {
  const message = unwrap(bytes, "mls_public_message", "mls_private_message");
  const result =
    message.wireformat === "mls_public_message"
      ? await mls.processPublicMessage(actor.state, message.publicMessage, pskIndex(actor), actor.cs)
      : await mls.processPrivateMessage(actor.state, message.privateMessage, pskIndex(actor), actor.cs);
  actor.state = result.newState;
  return { message, result };
}

async function takeIn(actor, proposals) {
  for (const bytes of proposals) {
    const name = Buffer.from(bytes).toString("hex");
    if (!actor.seen.has(name)) await process(actor, bytes);
    actor.seen.add(name);
  }
}

// createCommit decides by itself whether to make a path.
function refuseForcedPath(proposals) {
  if (proposals.length > 0 && !proposals.some((p) => p.proposalType === "update" || p.proposalType === "remove")) {
    throw missing("has no option to put a path into a commit that can do without");
  }
}

async function commit(r) {
  const actor = get(actors, r.state_id);
  await takeIn(actor, r.by_reference);
  const { groupContext, ratchetTree, unappliedProposals } = actor.state;
  const extraProposals = r.by_value.map((d) => describe(d, actor.cs, groupContext, ratchetTree));
  if (r.force_path) refuseForcedPath([...extraProposals, ...Object.values(unappliedProposals).map((p) => p.proposal)]);
  const made = await mls.createCommit(
    { state: actor.state, pskIndex: pskIndex(actor), cipherSuite: actor.cs },
    { wireAsPublicMessage: !actor.encrypts, extraProposals, ratchetTreeExtension: !r.external_tree },
  );
  actor.pending = made.newState;
  return {
    commit: mls.encodeMlsMessage(made.commit),
    welcome: made.welcome && wrap("mls_welcome", "welcome", made.welcome),
    ratchet_tree: r.external_tree ? encodeRatchetTree(made.newState.ratchetTree) : undefined,
  };
}

async function handleCommit(r) {
  const actor = get(actors, r.state_id);
  await takeIn(actor, r.proposal);
  await process(actor, r.commit);
  actor.seen.clear();
  return actor;
}

function merge(r) {
  const actor = get(actors, r.state_id);
  if (actor.pending === undefined) throw invalid("no commit is pending");
  actor.state = actor.pending;
  actor.pending = undefined;
  actor.seen.clear();
  return actor;
}

async function join(actor, r, prior) {
  const { publicPackage, privatePackage } = actor.keys;
  const index = mls.makePskIndex(prior, actor.psks);
  actor.state = await mls.joinGroup(
    unwrapWelcome(r.welcome), publicPackage, privatePackage, index, actor.cs, tree(r.ratchet_tree), prior, clientConfig,
  );
  return authenticator(actor.state);
}

// goOn makes the actor that a member of a closed group will be in the next one.
async function goOn(actor) {
  const { kind, reinit } = actor.state.groupActiveState;
  if (kind !== "suspendedPendingReinit") throw invalid("the commit has no ReInit");
  const next = await newActor(mls.ciphersuites[reinit.cipherSuite], actor.identity, actor.encrypts);
  next.closed = actor.state;
  return { reinit_id: add(actors, next), key_package: wrapKeyPackage(next), epoch_authenticator: authenticator(actor.state) };
}

// succeed begins a group that is bound to an earlier one: ts-mls's own functions for it
// can't put the ratchet tree into the welcome.
async function succeed(actor, prior, usage, groupId, extensions, keyPackages, r) {
  const group = await mls.createGroup(groupId, actor.keys.publicPackage, actor.keys.privatePackage, extensions, actor.cs, clientConfig);
  const id = {
    psktype: "resumption",
    usage,
    pskGroupId: prior.groupContext.groupId,
    pskEpoch: prior.groupContext.epoch,
    pskNonce: actor.cs.rng.randomBytes(actor.cs.kdf.size),
  };
  const extraProposals = [
    ...keyPackages.map((kp) => ({ proposalType: "add", add: { keyPackage: unwrapKeyPackage(kp) } })),
    { proposalType: "psk", psk: { preSharedKeyId: id } },
  ];
  if (r.force_path) refuseForcedPath(extraProposals);
  const made = await mls.createCommit(
    { state: group, pskIndex: mls.makePskIndex(prior, {}), cipherSuite: actor.cs },
    { extraProposals, ratchetTreeExtension: !r.external_tree },
  );
  actor.state = made.newState;
  return {
    welcome: made.welcome && wrap("mls_welcome", "welcome", made.welcome),
    ratchet_tree: r.external_tree ? encodeRatchetTree(made.newState.ratchetTree) : undefined,
    epoch_authenticator: authenticator(made.newState),
  };
}

function vector(elements) {
  const n = elements.length;
  const length = n < 64 ? [n] : [0x40 | (n >> 8), n & 0xff];
  return Uint8Array.from([...length, ...elements]);
}

const service = {
  Name: () => ({ name: "ts-mls" }),
  SupportedCiphersuites: () => ({ ciphersuites: suiteNumbers }),

  async CreateGroup(r) {
    const actor = await newActor(r.cipher_suite, r.identity, r.encrypt_handshake);
    const { publicPackage, privatePackage } = actor.keys;
    actor.state = await mls.createGroup(r.group_id, publicPackage, privatePackage, [], actor.cs, clientConfig);
    return { state_id: add(actors, actor) };
  },
  async CreateKeyPackage(r) {
    const actor = await newActor(r.cipher_suite, r.identity, true);
    return { transaction_id: add(actors, actor), key_package: wrapKeyPackage(actor), ...privateKeys(actor) };
  },
  async JoinGroup(r) {
    const actor = get(actors, r.transaction_id);
    actor.encrypts = r.encrypt_handshake;
    return { epoch_authenticator: await join(actor, r), state_id: r.transaction_id };
  },
  async ExternalJoin(r) {
    if (r.psks.length > 0) throw missing("has no option for pre-shared keys in external commits");
    const groupInfo = unwrapGroupInfo(r.group_info);
    const actor = await newActor(suiteOf(groupInfo), r.identity, r.encrypt_handshake);
    const { publicPackage, privatePackage } = actor.keys;
    const made = await mls.joinGroupExternal(
      groupInfo, publicPackage, privatePackage, r.remove_prior, actor.cs, tree(r.ratchet_tree), clientConfig,
    );
    actor.state = made.newState;
    return {
      state_id: add(actors, actor),
      commit: wrap("mls_public_message", "publicMessage", made.publicMessage),
      epoch_authenticator: authenticator(actor.state),
    };
  },

  async GroupInfo(r) {
    const { state, cs } = get(actors, r.state_id);
    const nodes = encodeRatchetTree(state.ratchetTree);
    // ts-mls's own function leaves out that the key is a vector (§12.4.3.2).
    const { publicKey } = await cs.hpke.deriveKeyPair(state.keySchedule.externalSecret);
    const extensions = [{ extensionType: "external_pub", extensionData: vector(await cs.hpke.exportPublicKey(publicKey)) }];
    if (!r.external_tree) extensions.push({ extensionType: "ratchet_tree", extensionData: nodes });
    const groupInfo = await createGroupInfo(state.groupContext, state.confirmationTag, state, extensions, cs);
    return { group_info: wrap("mls_group_info", "groupInfo", groupInfo), ratchet_tree: r.external_tree ? nodes : undefined };
  },
  StateAuth: (r) => ({ state_auth_secret: authenticator(get(actors, r.state_id).state) }),
  async Export(r) {
    const { state, cs } = get(actors, r.state_id);
    return { exported_secret: await mls.mlsExporter(state.keySchedule.exporterSecret, r.label, r.context, r.key_length, cs) };
  },
  async Protect(r) {
    const actor = get(actors, r.state_id);
    const made = await mls.createApplicationMessage(actor.state, r.plaintext, actor.cs, r.authenticated_data);
    actor.state = made.newState;
    return { ciphertext: wrap("mls_private_message", "privateMessage", made.privateMessage) };
  },
  async Unprotect(r) {
    const { message, result } = await process(get(actors, r.state_id), r.ciphertext);
    if (result.kind !== "applicationMessage") throw invalid("not an application message");
    return { plaintext: result.message, authenticated_data: message.privateMessage.authenticatedData };
  },
  StorePSK(r) {
    get(actors, r.state_or_transaction_id).psks[mls.bytesToBase64(r.psk_id)] = r.psk_secret;
    return {};
  },

  AddProposal: proposing("add"),
  RemoveProposal: proposing("remove"),
  ExternalPSKProposal: proposing("externalPSK"),
  ResumptionPSKProposal: proposing("resumptionPSK"),
  GroupContextExtensionsProposal: proposing("groupContextExtensions"),
  ReInitProposal: proposing("reinit"),
  UpdateProposal() {
    throw missing("can't propose an Update: it keeps no key for a leaf that is not committed yet");
  },

  Commit: commit,
  async HandleCommit(r) {
    return { state_id: r.state_id, epoch_authenticator: authenticator((await handleCommit(r)).state) };
  },
  HandlePendingCommit: (r) => ({ state_id: r.state_id, epoch_authenticator: authenticator(merge(r).state) }),

  ReInitCommit: commit,
  HandlePendingReInitCommit: (r) => goOn(merge(r)),
  HandleReInitCommit: async (r) => goOn(await handleCommit(r)),
  async ReInitWelcome(r) {
    const actor = get(actors, r.reinit_id);
    const { groupId, extensions } = actor.closed.groupActiveState.reinit;
    return { state_id: r.reinit_id, ...(await succeed(actor, actor.closed, "reinit", groupId, extensions, r.key_package, r)) };
  },
  async HandleReInitWelcome(r) {
    const actor = get(actors, r.reinit_id);
    return { state_id: r.reinit_id, epoch_authenticator: await join(actor, r, actor.closed) };
  },

  async CreateBranch(r) {
    const from = get(actors, r.state_id);
    const actor = await newActor(mls.ciphersuites[from.cs.name], from.identity, from.encrypts);
    const made = await succeed(actor, from.state, "branch", r.group_id, r.extensions.map(extension), r.key_packages, r);
    return { state_id: add(actors, actor), ...made };
  },
  async HandleBranch(r) {
    const from = get(actors, r.state_id);
    const actor = get(actors, r.transaction_id);
    actor.encrypts = from.encrypts;
    return { state_id: r.transaction_id, epoch_authenticator: await join(actor, r, from.state) };
  },

  async NewMemberAddProposal(r) {
    const groupInfo = unwrapGroupInfo(r.group_info);
    const actor = await newActor(suiteOf(groupInfo), r.identity, true);
    const message = await mls.proposeAddExternal(groupInfo, actor.keys.publicPackage, actor.keys.privatePackage, actor.cs);
    return { transaction_id: add(actors, actor), proposal: mls.encodeMlsMessage(message), ...privateKeys(actor) };
  },
  async CreateExternalSigner(r) {
    const cs = await implementation(r.cipher_suite);
    const keys = await signatureKeys(r.cipher_suite, cs);
    const credential = { credentialType: "basic", identity: r.identity };
    const sender = mls.encodeExternalSender({ signaturePublicKey: keys.publicKey, credential });
    return { signer_id: add(signers, { cs, keys }), external_sender: sender };
  },
  AddExternalSigner(r) {
    const actor = get(actors, r.state_id);
    const extensions = actor.state.groupContext.extensions;
    if (extensions.some((e) => e.extensionType === "external_senders")) throw missing("knows one external sender only");
    // The extension is a vector (§12.1.8.1).
    const senders = { extensionType: "external_senders", extensionData: vector(r.external_sender) };
    return propose(actor, {
      proposalType: "group_context_extensions",
      groupContextExtensions: { extensions: [...extensions, senders] },
    });
  },
  async ExternalSignerProposal(r) {
    const { cs, keys } = get(signers, r.signer_id);
    const groupInfo = unwrapGroupInfo(r.group_info);
    const proposal = describe(r.description, cs, groupInfo.groupContext, tree(r.ratchet_tree));
    const message = await mls.proposeExternal(groupInfo, proposal, keys.publicKey, keys.signKey, cs);
    return { proposal: mls.encodeMlsMessage(message) };
  },

  Free(r) {
    get(actors, r.state_id);
    actors.delete(r.state_id);
    return {};
  },
};

const privateKeys = ({ keys: { privatePackage } }) => ({
  init_priv: privatePackage.initPrivateKey,
  encryption_priv: privatePackage.hpkePrivateKey,
  signature_priv: privatePackage.signaturePrivateKey,
});

// own copies bytes out of the buffers that gRPC shares between messages.
function own(value) {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  if (Array.isArray(value)) return value.map(own);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, own(v)]));
}

const handlers = Object.fromEntries(
  Object.entries(service).map(([name, method]) => [
    name,
    (call, done) =>
      Promise.resolve()
        .then(() => method(own(call.request)))
        .then(
          (response) => done(null, response),
          (error) => done({ code: error.code ?? grpc.status.FAILED_PRECONDITION, details: `${error.name}: ${error.message}` }),
        ),
  ]),
);

const definition = loader.loadSync(fileURLToPath(new URL("../mlsharness/proto/mls_client.proto", import.meta.url)), {
  keepCase: true,
  longs: String,
  defaults: true,
});
const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
server.addService(grpc.loadPackageDefinition(definition).mls_client.MLSClient.service, handlers);

const [address] = globalThis.process.argv.slice(2);
server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(address.replace(/:\d+$/, ":" + port));
});
globalThis.process.stdin.resume().on("end", () => globalThis.process.exit(0));
