package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A check is something that an issue asks for and a test must prove. It holds
// when at least one of its tests ran and none failed.
type check struct {
	id, what string
	step     string         // in which its tests run
	pkg      string         // folder, with "/..." for those below too
	test     *regexp.Regexp // names of top-level tests
}

// conformance are the rows of the node's checklist that it must meet so far. The
// proof of S6 is the test TestS6 or TestS6_… of the package node.
var conformance = []struct{ id, what string }{
	{"T1", "gRPC over cleartext HTTP/2"},
	{"T2", "pings every few seconds never close a connection"},
	{"T3", "a stream with nothing to deliver sends its headers within 100 ms"},
	{"T4", "a request of 20 MiB"},
	{"T5", "a reply is cut below 25 MiB, its cursor is the last id"},
	{"T6", "empty or missing version headers"},
	{"T7", "an unknown method is UNIMPLEMENTED"},
	{"T8", "health check"},
	{"T9", "a gRPC-Web call over HTTP/1.1"},
	{"T10", "gRPC-Web errors: gRPC's status and text"},
	{"T11", "a gRPC-Web stream: headers at once, each message when it comes"},
	{"T12", "scripts of any page may call every path"},
	{"T13", "scripts of any page may see every response"},
	{"I1", "inbox of an unknown address: one reply, no inbox"},
	{"I2", "n look-ups give n replies in order"},
	{"I3", "a published identity update is there at once"},
	{"I4", "an empty identity update is refused"},
	{"I5", "bad signature, wrong inbox, replay: refused, nothing stored"},
	{"I6", "the 257th update: the log is full"},
	{"I7", "two updates at once: one after the other"},
	{"I8", "updates after a number, whole, in order"},
	{"I9", "a removed address finds no inbox"},
	{"I10", "an address that moved finds its new inbox"},
	{"I11", "numbers grow and are never used twice"},
	{"I12", "wallet contracts without a chain: an answer for each"},
	{"K1", "upload without a key package"},
	{"K2", "upload of a bad key package"},
	{"K3", "upload before the inbox exists"},
	{"K4", "the newest key package is fetched"},
	{"K5", "unknown installations leave their place empty"},
	{"K6", "fetching does not use up"},
	{"K7", "a key asked twice is answered twice"},
	{"K8", "the same key package twice"},
	{"G1", "nothing to send"},
	{"G2", "one bad message refuses the whole request"},
	{"G3", "message, proposal and commit are told apart"},
	{"G4", "the same bytes are stored once"},
	{"G5", "a batch keeps its order"},
	{"G6", "what was sent is in the next query, on any connection"},
	{"G7", "query without paging"},
	{"G8", "pages upwards"},
	{"G9", "limits out of range"},
	{"G10", "a small limit"},
	{"G11", "exactly one page"},
	{"G12", "pages downwards"},
	{"G13", "empty and unknown groups"},
	{"G14", "50 senders and a polling reader: nothing missed"},
	{"G15", "sender HMAC and push flag come back unchanged"},
	{"G16", "group ids are 16 bytes"},
	{"N1", "newest message of known and unknown groups"},
	{"N2", "newest message of no groups"},
	{"W1", "welcomes and pointers come back as sent"},
	{"W2", "missing parts of a welcome"},
	{"W3", "symmetric welcome to a random topic"},
	{"W4", "pointer with another algorithm"},
	{"W5", "wrong key length or algorithm"},
	{"W6", "algorithm 0 means CURVE25519"},
	{"W7", "the same welcome is stored once"},
	{"W8", "paging of welcomes"},
	{"S1", "a group stream without filters stays open"},
	{"S2", "a welcome stream without filters is refused"},
	{"S3", "replay and live meet: each message once, in order"},
	{"S4", "two topics: nothing lost, order in each"},
	{"S5", "a client that leaves frees everything"},
	{"S6", "a reader that never reads: bounded memory, nobody disturbed, its stream open"},
	{"S7", "an idle stream with pings delivers afterwards"},
	{"S8", "delivery within 50 ms"},
	{"S9", "shutdown ends streams with UNAVAILABLE"},
	{"S10", "1,000 filters"},
	{"C1", "commit log: bad publishes"},
	{"C2", "commit log: bad queries"},
	{"C3", "commit log: entries in order, unchanged"},
	{"C4", "commit log: no downward queries"},
	{"L1", "rate limit"},
	{"L2", "publishing disabled"},
	{"R1", "calls that are no longer offered"},
	{"D16", "the cutover to the decentralised network is far in the future"},
	{"X1", "Subscribe: Started comes first"},
	{"X2", "Subscribe: history, TopicsLive, CatchupComplete, live"},
	{"X3", "Subscribe: bad requests end the stream, nothing is done"},
	{"X4", "Subscribe: a Mutate without a wave is answered at once"},
	{"X5", "Subscribe: a topic added again from where it is"},
	{"X6", "Subscribe: a topic added again from an earlier place is replayed"},
	{"X7", "Subscribe: removed and added by one Mutate"},
	{"X8", "Subscribe: published during a wave: once, in order"},
	{"X9", "Subscribe: history only, then the end"},
	{"X10", "Subscribe: history only of a live topic is refused"},
	{"X11", "Subscribe: Ping and Pong"},
	{"X12", "Subscribe: who doesn't answer or read is dropped"},
	{"X13", "Subscribe: frames below 2 MiB, waves apart"},
	{"X14", "Subscribe: 100,000 topics, not one more"},
	{"X15", "Subscribe switched off is UNIMPLEMENTED"},
}

// named are the checks beside the checklist; test is a pattern of test names.
var named = []struct{ id, what, step, pkg, test string }{
	{"repo", "who imports whom", stepTests, "internal/archtest", "TestImports"},
	{"repo", "the public API is as in its golden files", stepTests, "internal/archtest", "TestPublicAPI"},
	{"mls", "needs three small modules and nothing of XMTP's", stepTests, "internal/archtest", "TestMLSAlone"},
	{"repo", "tests that pages name exist", stepTests, "internal/archtest", "TestMatrix"},
	{"repo", "links between pages lead somewhere, to the heading; README.md names every guide", stepTests, "internal/archtest", "TestLinks"},
	{"repo", "listings of README, the first bot and the MLS guide are compiled; the guide's first program runs", stepTests, "internal/archtest", "TestListings|TestFirstListing"},
	{"mls", "presentation codec", stepTests, "mls/internal/wire", ".*"},
	{"mls", "vectors of the MLS working group", stepPlain, "mls", "TestWorkingGroupVectors"},
	{"mls", "key packages: decode, encode, verify", stepTests, "mls", "TestKeyPackage.*"},
	{"mls", "framing: group id, epoch, content type", stepTests, "mls", "TestParseHeader"},
	{"identity", "65 inbox ids", stepTests, "identity", "TestInboxIDVectors"},
	{"identity", "14 signatures", stepTests, "identity", "TestPublicSignatureVectors"},
	{"identity", "10 lifecycle steps with their states", stepTests, "identity", "TestLifecycleVectors"},
	{"identity", "151 logs with the official verdicts", stepTests, "identity", "TestAssociationVectors"},
	{"identity", "credentials and key packages", stepTests, "identity", "TestKeyPackage.*"},
	{"node", "the order: numbers, batches, failures", stepTests, "node/internal/order", ".*"},
	{"node", "the index: reads, state, directory", stepTests, "node/internal/index", ".*"},
	{"node", "the hub: live delivery", stepTests, "node/internal/hub", ".*"},
	{"node", "nothing lost between replay and live, or under many publishers", stepTests, "node", "TestNothingLost|TestResume"},
	{"node", "Subscribe against a model: everything once, in order, every Mutate answered", stepTests, "node", "TestSubscribe.*"},
	{"node", "a recorded scene of official clients, byte for byte", stepTests, "node", "TestRecorded.*"},
	{"node", "start in a test, median under 20 ms", stepTests, "node", "TestStart.*"},
	{"node", "garbage and truncated protobuf, MLS and gRPC frames; over-long input", stepTests, "node", "TestBad.*|TestTruncated.*|TestDamagedMLS|TestOversized|TestBigHeaders|TestLong.*"},
	{"node", "HTTP, gRPC-Web and Connect: limits, errors and ends as with gRPC", stepTests, "node/...", "TestConnect.*|TestWeb.*|TestSizes|TestErrors|TestSlowBody|TestSlowRest|TestSilentStream|TestStalledSender|TestDrain"},
	{"node", "slow, half-open and very many connections; garbage", stepTests, "node/...", "TestHalfOpen|TestSniff|TestUndecided|TestManyUndecided"},
	{"node", "TLS: files that change, ACME, gRPC and the web by ALPN", stepTests, "node", "TestTLS.*|TestACME.*"},
	{"node", "power cut at any write", stepTests, "node/...", "TestPowerCut.*"},
	{"node", "kill -9 under load", stepTests, "node/...", "TestKill.*"},
	{"node", "damaged and foreign directories stay untouched", stepTests, "node/internal/index", "TestDamagedStore|TestRefusedDirectory|TestInUse"},
	{"node", "history: upload and download, ids, browsers, limits, expiry, slow peers, silence", stepTests, "node/internal/history", ".*"},
	{"node", "history: in a node, across restarts, ended with it", stepTests, "node", "TestHistory.*"},
	{"node", "full disk: reads go on, writes resume", stepTests, "node/...", "TestDiskFull.*|TestFullDisk.*"},
	{"node", "a failed write or sync ends the node, nothing is tried again", stepTests, "node/...", "TestFail.*"},
	{"node", "a slow sync: nothing acknowledged before, reads go on", stepTests, "node", "TestSlowSync"},
	{"node", "damaged tables: told with their range of keys and what to do", stepTests, "node/...", "TestDamagedTable.*|TestVerifyChecksums"},
	{"node", "clocks that jump back and forth", stepTests, "node/...", "TestClock.*"},
	{"node", "descriptors exhausted: the store has its own, others are served again", stepTests, "node/...", "TestDescriptors|TestAcceptErrors"},
	{"node", "10,000 half-open connections", stepTests, "node/...", "TestTenThousandHalfOpen|TestManyUndecided"},
	{"node", "slow readers and slow senders", stepTests, "node/...", "TestS6|TestSlow.*|TestWebStalledReader|TestStalledSender|TestX12"},
	{"node", "HTTP/2 resets, pings and other frames in floods", stepTests, "node/...", "TestFloods|TestResetBeforeServed"},
	{"node", "bombs: compression, lengths that lie, lists in lists, headers", stepTests, "node", "TestCompressionBombs|TestLengthsThatLie|TestInflated|TestBigHeaders"},
	{"node", "an identity update of 25 MiB full of signatures", stepTests, "node", "TestSignatureFloods"},
	{"client", "soak: 200 clients join, leave, send and are cut off: nothing lost, doubled or out of order, no growth", stepTests, "xmtp", "TestSoak"},
	{"node", "limits: by work, caller, inbox; trusted proxies; retry-after, over gRPC and the web", stepTests, "node/...", "TestLimit.*|TestCaller.*|TestUnnamedProxy|TestAddressLists|TestRetryAfter|TestCosts|TestStreamLimits|TestValidations|TestInboxLimits"},
	{"node", "retention: old messages go, all else is as if they had never been", stepTests, "node/...", "TestRetention|TestRetention_Options|TestSweep.*|TestPruner.*|TestClock"},
	{"node", "retention: publishing goes on at its pace, disk space comes back", stepTests, "node", "TestRetention_Publishing"},
	{"node", "metrics, health, traces, a dashboard, and a log that names nobody", stepTests, "node", "TestMetrics|TestReadiness|TestTraces|TestDashboard|TestLogNamesNobody"},
	{"node", "backups of a busy node; numbers jump ahead after one", stepTests, "node/...", "TestBackup|TestStartFromBackup|TestNumbersAfterBackup|TestUnfinishedBackup|TestShortenedBackup"},
	{"node", "verification finds what is wrong in a store", stepTests, "node/internal/index", "TestVerify.*"},
	{"node", "stores of every version are opened, a newer one is refused", stepTests, "node", "TestGoldenStores|TestOpenStoreErrors"},
	{"xmtp", "settings read again, traces sent, what is in ops", stepTests, "cmd/xmtp", "TestReload.*|TestTracesAreSent|TestOpsFiles"},
	{"xmtp", "help, settings, clear errors, nothing touched", stepTests, "cmd/xmtp", "TestScripts"},
	{"xmtp", "a signal ends streams with UNAVAILABLE", stepTests, "cmd/xmtp", "TestSignal.*|TestSecondSignal.*"},
	{"mls", "PrivateMessage handshakes, windows, own messages, pending results", stepTests, "mls", "TestConversation|TestGenerationWindow|TestOutOfOrder|TestFarGeneration|TestPastEpochs|TestLateHandshake|TestOwnMessages|TestPending"},
	{"mls", "random walks: all members agree, and a join from every state", stepTests, "mls", "TestRandomWalk"},
	{"mls", "any flipped bit is refused and changes nothing", stepTests, "mls", "TestFlippedBits.*"},
	{"mls", "a follower without secrets: sees what members see, refuses what they refuse, changes nothing then", stepTests, "mls", "TestFollower.*|TestLoadFollower.*|Test.*Rules|TestProposalsByReference"},
	{"mls", "X.509 credentials: real chains, bad ones refused, mixed groups", stepTests, "mls", "TestX509|TestMixedCredentials"},
	{"mls", "parent hashes, length boundaries, rules of proposals, paths, trees, framing", stepTests, "mls", "TestEmptyParentHash|TestParentHash.*|TestLengthBoundaries|Test.*Rules"},
	{"mls", "the official client's groups followed", stepTests, "mls", "TestOfficial.*"},
	{"mls", "forward secrecy and post-compromise security against a copy of all state", stepTests, "mls", "TestForwardSecrecy.*|TestPostCompromiseSecurity"},
	{"mls", "stored state: golden files, sizes, loading", stepTests, "mls", "TestGolden.*|TestRecordSizes|TestLoadErrors"},
	{"mls", "decoders take memory for what has come only; long lists in time in proportion", stepTests, "mls", "TestDecodingTakesWhatHasCome|TestManyPreSharedKeys"},
	{"mls", "HPKE against RFC 9180, crypto/hpke and captured welcomes", stepTests, "internal/hpke", "TestVectors|TestOracle|TestWelcomes"},
	{"protocol", "captures and vectors replayed: authenticators, bytes, ids, senders", stepTests, "protocol", "TestReplay.*"},
	{"protocol", "sender HMACs, welcomes and key packages of the captures", stepTests, "protocol", "TestSenderHMACs|TestCaptured.*|TestWelcome.*"},
	{"protocol", "commit logs of the captures: signatures, bytes, what counts", stepTests, "protocol", "TestCapturedCommitLog|TestCommitLog.*"},
	{"protocol", "every rule for commits and joins", stepTests, "protocol", "TestCommitRules|TestJoinRules|TestRandomTalk"},
	{"client", "direct messages, groups, streams between Go clients", stepTests, "xmtp", "TestDirectMessage.*|TestGroup.*|TestStream.*"},
	{"client", "every permission by who may and who may not, as sender and as receiver", stepTests, "xmtp", "TestGroupPermissions"},
	{"client", "members out of reach are named and added later", stepTests, "xmtp", "TestGroupMembersOutOfReach|TestGroupWithNobodyInReach"},
	{"client", "settings, leaving, pausing, welcome pointers, limits", stepTests, "xmtp", "TestGroupInfo|TestGroupMembers|TestGroupChanges.*|TestGroupLeave.*|TestGroupPaused|TestGroupWelcomePointers"},
	{"client", "outbox, skipping, key packages, further devices", stepTests, "xmtp", "TestMessageWaits.*|TestWhatCantBeUsed.*|TestKeyPackage.*|TestSecond.*|TestReopened.*"},
	{"client", "the database: power cuts, spent secrets gone, nothing touched that can't be opened", stepTests, "xmtp/internal/store", ".*"},
	{"client", "stopped at any write and any call of the network, each operation; each fault of the disk", stepTests, "xmtp", "TestCrash.*|TestKill.*|TestStopped.*"},
	{"client", "a disk that is full, read-only or fails: typed, nothing lost, streams go on", stepTests, "xmtp/...", "TestFullDisk.*|TestStreamsOnAFullDisk|TestFaults.*|TestPowerCutAfterAFailedSync|TestOpeningOnABadDisk"},
	{"client", "inboxes: identifiers added, removed and reassigned, recovery, passkeys", stepTests, "xmtp", "TestIdentifier.*|TestRecoveryChanges|TestPasskeyRegisters|TestUnusedSecond|TestInboxUpdateLimits"},
	{"client", "inboxes: states, history, fingerprints, look-ups, reach, also without a client", stepTests, "xmtp", "TestInboxStates|TestNoSuchInbox|TestLookUps|TestInvalidInbox|TestFingerprint|TestInstallationSignatures|TestReach"},
	{"client", "inboxes: told when installations change", stepTests, "xmtp", "TestInstallationsChange"},
	{"client", "commit logs: kept, published, read, compared; forks and suspicions told", stepTests, "xmtp", "TestCommitLog.*|TestLongCommitLog|TestFork.*|TestMessageFromAhead.*|TestCommitsThatAreNotApplied|TestOneshot.*"},
	{"client", "workers: switched off one by one, idle, patient, ended", stepTests, "xmtp", "TestWorker.*|TestCloseWithoutANode"},
	{"client", "self-update policies, uploads of key packages that fail, waiting for the registration", stepTests, "xmtp", "TestSelfUpdate.*|TestKeyPackageUploadFails|TestWaitRegistered"},
	{"client", "expired messages: gone from the database and the disk, told, streams undisturbed", stepTests, "xmtp", "TestExpired.*|TestStreamWhileMessagesAreDeleted"},
	{"client", "consent: by itself, set, read, streamed", stepTests, "xmtp", "TestConsent.*|TestStreamConsent"},
	{"client", "conversations: lists with filters, look-ups, streams by consent and type", stepTests, "xmtp", "TestConversation.*|TestStreamConversations|TestStreamsByConsentAndType"},
	{"client", "durable streams: over restarts, breaks, panics and power cuts each message once, but the one that was cut off", stepTests, "xmtp", "TestDurableStream.*|TestStreamConsentInTheLoop"},
	{"client", "streams: cut, stalled and swallowed at random, node restarted, client reopened: each message once, in order; 100,000 in proof", stepPlain, "xmtp", "TestStorm"},
	{"client", "streams: a cut of 2 s in 500 messages; one connection for all clients", stepTests, "xmtp", "TestCutInAStream|TestClientsShareAConnection"},
	{"client", "streams: back within a second of the network after any kind and length of break; slow networks kept; 100 streams a connection", stepTests, "xmtp/internal/network", ".*"},
	{"client", "duplicate direct messages are one", stepTests, "xmtp", "TestDuplicateDMs.*|TestThreeDMs.*|TestRepeatedChanges.*"},
	{"client", "messages: sent without waiting, prepared, published later, tried again, idempotency keys, push", stepTests, "xmtp", "TestOptimistic.*|TestPreparedMessages|TestRefusedMessages|TestIdempotencyKey|TestSameText.*|TestWhatWakesDevices"},
	{"client", "messages: every filter, order and count; pages that neither skip nor repeat", stepTests, "xmtp", "TestListing|TestPagesNeitherSkipNorRepeat"},
	{"client", "messages: queries against a model, from an index, times of insertion", stepTests, "xmtp/internal/store", "TestMessage.*|TestListingUsesAnIndex|TestInsertionTimesGrow|TestPublishedRowsAreNew"},
	{"client", "messages: when they expire, for each client", stepTests, "xmtp", "TestExpiry"},
	{"client", "messages: 64 senders in all ways at once", stepTests, "xmtp", "TestAllKindsOfSendsAtOnce"},
	{"client", "every error has its official code and says whether it is retryable", stepTests, "xmtp", "TestError.*|TestEveryErrorHasItsCode"},
	{"client", "content by codec, compressed content, bounded", stepTests, "content", "TestCodec.*|TestCompressed.*|TestGroupUpdated.*|TestText.*|TestMarshal.*"},
	{"client", "the matrix of operations is whole, and each has an example", stepTests, "internal/archtest", "TestMatrix|TestExamples"},
	{"client", "a database that was rolled back sends nothing", stepTests, "xmtp", "TestRolledBack.*"},
	{"client", "many clients in one process: memory, descriptors and threads of each; nothing left of those closed or not opened", stepTests, "xmtp", "TestIdleClients|TestNothingLeft"},
	{"client", "a second process is refused, or stands by and goes on when the first is killed", stepTests, "xmtp", "TestDatabaseInUse|TestStandby.*"},
	{"client", "asked too much: the node's refusals, budgets, requests counted", stepTests, "xmtp", "TestRefused(ForTheRate|WhileClosing)|TestBudget.*|TestInboxQuota"},
	{"client", "a node that lies in each way that shows: what is refused changes nothing, and is told", stepTests, "xmtp", "TestHostileNode|TestHostileStream|TestNodeLiesAtRandom"},
	{"client", "floods of welcomes, groups and pointers cost what they may, and starve nobody", stepTests, "xmtp", "TestWelcomeFlood|TestFloodOf.*|TestWelcomesRotate.*|TestDeferredBounds|TestWelcomeThatCantBeJudged|TestHostileWelcomes"},
	{"client", "members who send garbage of every kind, also at random", stepTests, "xmtp", "TestHostileMember.*"},
	{"client", "xmtptest: a network in one test: time, every fault, restarts, parallel, nothing left; the guide's bot", stepTests, "xmtptest", "Test.*"},
	{"node", "a node within the process: any listener, memory that outlives it, interceptors", stepTests, "node", "TestMemory|TestInterceptors"},
	{"client", "64 senders at once", stepTests, "xmtp", "TestManySenders.*|TestManyGoroutines.*"},
	{"xmtp", "demo, id, send, read", stepTests, "cmd/xmtp", "TestScripts"},
	{"Go", "direct messages with official clients, created by either side", stepOfficial, "interop", "TestGoDM.*"},
	{"Go", "groups with official clients, created by either side, members come and go", stepOfficial, "interop", "TestGoGroup|TestGoCreatesGroup"},
	{"Go", "streams with official clients", stepOfficial, "interop", "TestGoStream"},
	{"Go", "every operation on groups, by either side, in groups of either", stepOfficial, "interop", "TestGoGroupOperations|TestGoGroupMatrix"},
	{"Go", "five Go and five official clients at random end with one group", stepOfficial, "interop", "TestGoMixedGroup"},
	{"Go", "messages that no client makes are taken alike by both sides", stepOfficial, "interop", "TestGoMaliciousMessages"},
	{"Go", "commits that break the rules are refused by both sides alike", stepOfficial, "interop", "TestGoMaliciousCommits"},
	{"Go", "permissions of either side bind the other", stepOfficial, "interop", "TestGoGroupPermissions"},
	{"Go", "every permission tried by who may and who may not, judged alike by both sides", stepOfficial, "interop", "TestGoPermissionRules|TestGoDMRules"},
	{"Go", "every permission tried by who may and who may not, judged alike by both sides", stepOfficial, "interop", "TestGoPermissionRules"},
	{"client", "installations revoked: one, several, all others, without a client, from the error at the limit", stepTests, "xmtp", "TestRevoke|TestInstallationLimit|TestDevicesRevokeEachOther"},
	{"client", "a database lost over and over, a hundred times in proof, leaves one installation; warning at 200 updates", stepTests, "xmtp", "TestDatabaseLostAHundredTimes|TestReplacing|TestInboxNearlyFull"},
	{"client", "what a revoked installation can do and notices; when installations are looked at; those that failed", stepTests, "xmtp", "TestRevokedInstallation|TestWhenInstallationsAreLookedAt|TestInstallationOutOfReach"},
	{"client", "an older installation lets a new one into conversations", stepTests, "xmtp", "TestNewInstallationIsBroughtIn|TestWorkerBringsIn"},
	{"client", "killed while devices are revoked, replaced, let in", stepTests, "xmtp", "TestCrash"},
	{"Go", "installations of one inbox revoke each other across sides; members remove and let in those of the other side", stepOfficial, "interop", "TestGoDevicesRevoked|TestGoDevicesLetIn"},
	{"Go", "an older installation of either side lets a new one of the other in", stepOfficial, "interop", "TestGoDevicesMeet"},
	{"Go", "ten installations of both sides; a lost one replaced in one update; one that failed stays out", stepOfficial, "interop", "TestGoInstallationLimit|TestGoReplacing|TestGoInstallationOutOfReach"},
	{"Go", "leaving, done by the other side's client", stepOfficial, "interop", "TestGoGroupLeave"},
	{"Go", "minimum version, welcome pointers, disappearing messages of a DM", stepOfficial, "interop", "TestGoMinimumVersion|TestGoWelcomePointers|TestGoDMDisappearing"},
	{"Go", "identifiers added, removed and reassigned by either side, recovery changed", stepOfficial, "interop", "TestGoIdentifiers|TestGoReassign"},
	{"Go", "passkeys and contract wallets as identifiers, as recovery, registering", stepOfficial, "interop", "TestGoPasskeys|TestGoContractIdentifiers"},
	{"Go", "inbox look-ups, key packages, signatures: the same answers from both sides", stepOfficial, "interop", "TestGoInboxLookUps"},
	{"Go", "told when official installations come and go", stepOfficial, "interop", "TestGoInstallationsChange"},
	{"Go", "commit logs of either side taken and found equal by the other", stepOfficial, "interop", "TestGoCommitLog.*"},
	{"Go", "forks of either side's client noticed by the other's commit log", stepOfficial, "interop", "TestGoForked.*"},
	{"Go", "key packages after rotation; messages disappear on both sides", stepOfficial, "interop", "TestGoKeyPackageRotation|TestGoDisappearing"},
	{"Go", "four duplicates of a direct message, by two devices of either side, are one", stepOfficial, "interop", "TestGoDuplicateDMs"},
	{"Go", "consent changes by itself, lists and streams are filtered, as by the official client", stepOfficial, "interop", "TestGoConsent|TestGoLists|TestGoStreamFilters"},
	{"Go", "sent without waiting, prepared, published later, with one key: once, in order, both ways", stepOfficial, "interop", "TestGoOptimisticSends|TestGoIdempotencyKeys"},
	{"Go", "lists and counts with every filter as the official client has them; custom content both ways", stepOfficial, "interop", "TestGoListing"},
	{"Go", "messages expire when they do for the official client", stepOfficial, "interop", "TestGoExpiry"},
	{"Go", "away and back, node restarted", stepOfficial, "interop", "TestGoRestart"},
	{"Go", "64 senders at once, an official client receives all in order", stepOfficial, "interop", "TestGoManySenders"},
	{"E1", "direct messages both ways, group, streams, sync", stepOfficial, "interop", "TestDM|TestGroupOfThree|TestStreams"},
	{"E3", "130 messages, one sync", stepOfficial, "interop", "TestOneSync"},
	{"E4", "a stream idle for 90 s", stepOfficial, "interop", "TestIdleStream"},
	{"E5", "node stopped and started", stepOfficial, "interop", "TestRestart.*"},
	{"official", "device sync: a new device gets what was before it", stepOfficial, "interop", "TestDeviceSync"},
	{"official", "by https, the certificate replaced on the way", stepOfficial, "interop", "TestTLS"},
	{"E6", "browsers: register, DM, group, streams, reload", stepOfficial, "interop", "TestE6"},
	{"browser", "streams when the node is stopped, killed and started", stepOfficial, "interop", "TestBrowserRestart"},
	{"browser", "four clients in one profile over TLS", stepOfficial, "interop", "TestBrowserTabs"},
	{"official", "register", stepOfficial, "interop", "TestRegister"},
	{"official", "inbox look-up, canMessage", stepOfficial, "interop", "TestLookUp.*"},
	{"official", "duplicate direct messages become one", stepOfficial, "interop", "TestDuplicateDMs"},
	{"official", "group of 50", stepOfficial, "interop", "TestGroupOfFifty"},
	{"official", "add, remove, leave", stepOfficial, "interop", "TestMembership"},
	{"official", "name, image, description", stepOfficial, "interop", "TestMetadata"},
	{"official", "admins", stepOfficial, "interop", "TestAdmins"},
	{"official", "custom permissions", stepOfficial, "interop", "TestPermissions"},
	{"official", "consent", stepOfficial, "interop", "TestConsent"},
	{"official", "reactions, replies, attachments", stepOfficial, "interop", "TestContent"},
	{"official", "a 900 kB message", stepOfficial, "interop", "TestBigMessage"},
	{"official", "second installation, revoke", stepOfficial, "interop", "TestSecondInstallation"},
	{"official", "wallets linked and unlinked, recovery changed", stepOfficial, "interop", "TestWallets"},
	{"contracts", "endpoints that hang, redirect, lie, or answer with errors, reverts and giants", stepTests, "identity/scw", ".*"},
	{"contracts", "a chain that fails or hangs; a share for each caller; logs without a chain", stepTests, "node", "TestContract.*"},
	{"contracts", "ERC-1271 and ERC-6492 on a real EVM: wallets and factories good and bad", stepOfficial, "interop/chain", ".*"},
	{"contracts", "official and Go clients, deployed and not, joining and leaving, their chain away", stepOfficial, "interop", "TestContract.*"},
	{"passkeys", "found by their kind", stepTests, "node", "TestPasskeyLookUp"},
	{"passkeys", "found by official clients", stepOfficial, "interop", "TestPasskeys"},
	{"official", "away while 1,000 messages arrive", stepOfficial, "interop", "TestAway"},
	{"official", "several writers, nothing lost on a stream", stepOfficial, "interop", "TestStreamManyWriters"},
	{"official", "Subscribe with the newest SDK: many conversations, node restarted, idle, switched off", stepOfficial, "interop", "TestSubscribe.*"},
	{"official", "oldest, baseline and newest SDK in one group", stepOfficial, "interop", "TestVersionsTogether"},
	{"official", "kill -9 in a burst and a stream", stepOfficial, "interop", "TestKillDuringBurst"},
	{"harness", "the MLS working group's scenarios between two servers of ours, every suite", stepOfficial, "interop/mlsharness", "TestMLSHarnessOurs"},
	{"harness", "the same with ts-mls, both directions, suites 1, 2, 3 and 7", stepOfficial, "interop/mlsharness", "TestMLSHarnessTSMLS"},
	{"mls", "random groups with ts-mls, damaged and forged messages: the same verdicts, but for differences that are explained", stepOfficial, "interop/differential", "TestDifferential|TestCorpus|TestPathBelowRoot"},
	{"official", "their own test suites", stepOfficial, "interop", "TestOfficialSuites"},
}

// expect sets the checks that the tests of this run must prove.
func (r *runner) expect() error {
	for _, row := range conformance {
		pattern := regexp.MustCompile("^Test" + row.id + "(_.*)?$")
		r.checked = append(r.checked, check{row.id, row.what, stepTests, "node/...", pattern})
	}
	for _, n := range named {
		pattern, err := regexp.Compile("^(" + n.test + ")$")
		if err != nil {
			return fmt.Errorf("check %q: %w", n.what, err)
		}
		r.checked = append(r.checked, check{n.id, n.what, n.step, n.pkg, pattern})
	}
	return nil
}

type judged struct {
	check
	verdict verdict
	note    string
}

// judge gives each check its verdict. In the long tier nothing may be skipped.
func (r *runner) judge(results []result) []judged {
	var rows []judged
	for _, c := range r.checked {
		row := judged{c, missing, "no test"}
		if proof := r.tests.filter(c.covers); len(proof) > 0 {
			row.verdict, row.note = r.summary(proof)
		} else if i := slices.IndexFunc(results, func(res result) bool { return res.step == c.step && res.verdict == skipped }); i >= 0 {
			row.verdict, row.note = skipped, results[i].note
		}
		if row.verdict == skipped && r.proof {
			row.verdict = failed
		}
		rows = append(rows, row)
	}
	return rows
}

// covers tells whether a test, or the one it is a subtest of, proves a check.
func (c check) covers(t *test) bool {
	pkg := short(t.pkg)
	folder, below := strings.CutSuffix(c.pkg, "/...")
	return (pkg == folder || below && strings.HasPrefix(pkg, folder+"/")) && c.test.MatchString(t.top())
}

// summary is the verdict of several tests for one check. One failure decides; a
// skip does so only in the long tier, or when nothing else ran.
func (r *runner) summary(proof []*test) (verdict, string) {
	var names, skips []string
	v := skipped
	for _, t := range proof {
		if t.top() == t.name && t.verdict != skipped {
			names = append(names, t.name)
		}
		switch {
		case t.verdict == failed:
			v = failed
		case t.verdict == ok && t.subtests == 0 && v == skipped:
			v = ok
		case t.verdict == skipped && t.subtests == 0:
			skips = append(skips, t.name+" skipped: "+t.reason)
		}
	}
	if len(skips) > 0 && r.proof {
		v = failed
	}
	if len(names) > 5 {
		names = []string{fmt.Sprintf("%d tests", len(names))}
	}
	if len(names) > 0 {
		skips = append([]string{strings.Join(names, ", ")}, skips...)
	}
	return v, strings.Join(skips, "; ")
}
