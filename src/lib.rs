//! Counterseal: a trusted data space connector in one binary.
//!
//! An enterprise runs it beside its own systems. As a provider it publishes datasets as signed offers, sealed to
//! chosen recipients where they are not for everyone; as a consumer it finds, negotiates and receives data from its
//! partners' connectors, peer to peer, over the Dataspace Protocol 2025-1. A Cedar usage policy decides every release
//! and every use on the facts of that very request; its obligations are applied to the bytes; every decision leaves a
//! signed usage receipt, and the two parties' receipts match like the halves of a tally.
//!
//! ```text
//!   consumer                                                     provider
//!   catalog ───────────────── DSP, TLS 1.3 mutual ─────────────▶ discover?  (policy)
//!   negotiate ◀──────────────── agreement, signed by both ─────▶ negotiate? (policy)
//!   fetch ──── POST releases ──────────────────────────────────▶ release?   (policy) → receipt `released`, synced
//!     ciphertext ◀──── sealed records (RFC 8188) ─────────────── source → transform → seal
//!     acknowledgement, signed ─────────────────────────────────▶ receipt `delivered`, synced
//!     key ◀───────────── JWE to a one-time key, last of all ────
//!   use? (policy) → receipt `used` → plain stream to a local application
//! ```
//!
//! The rooms, in the order a request meets them. A room imports only from rooms below it in this list
//! (`tests/it/architecture.rs` holds the house to it):
//!
//! - `cli`: the commands, one file each; what a terminal shows.
//! - [`node`]: assembles a running connector from its config: listeners, tasks, graceful stop.
//! - [`api`]: the management API: axum handlers, roles, RFC 9457 problem details.
//! - [`exchange`]: one file a walk (pair, publish, catalog, negotiate, transfer, fetch, use, revoke, import, push); pending
//!   actions, events, outbox and timers.
//! - [`evidence`]: export, offline verification and matching of receipts.
//! - [`dataplane`]: releasing and receiving bytes under a grant.
//! - [`vault`]: what a consumer holds: sealed at rest, opened by a `use` decision, destroyed by key.
//! - [`agreement`]: agreements, statuses, manifests, counters; gathers facts; `decide()`.
//! - [`offer`]: datasets, offers and catalogs: signing, sealing, visibility, the DCAT view.
//! - [`transform`]: obligations applied to data, as a stream of records.
//! - [`source`]: opening a dataset's bytes under the operator's roots.
//! - [`policy`]: Cedar schema, slices, the four verdicts, obligations and their meet; the steward's workbench.
//! - [`protocol`]: Dataspace Protocol 2025-1 and the peer extension: wire types, state machines, routes, client.
//! - [`receipt`]: receipts, series, the log, and the committer: the only way to write.
//! - [`identity`]: own keys and certificates, participant statements, partners of both kinds, tokens.
//! - [`net`]: outbound client factory, address guard, TLS accept loop.
//! - [`store`]: `get`, `scan`, `commit`; sled inside, objects and content packs beside it.
//! - [`crypto`]: sign, verify, seal, open, hash, canonical JSON.
//! - [`config`], [`time`], [`id`], [`error`]: the ground.
#![forbid(unsafe_code)]

pub mod agreement;
pub mod api;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod dataplane;
pub mod error;
pub mod evidence;
pub mod exchange;
pub mod id;
pub mod identity;
pub mod net;
pub mod node;
pub mod offer;
pub mod policy;
pub mod protocol;
pub mod receipt;
pub mod source;
pub mod store;
pub mod time;
pub mod transform;
pub mod vault;
