//! What goes through the front door: processes, sockets, files. One binary: linking is the slow part.

mod applications;
mod architecture;
mod by_hand;
mod cases;
mod demo;
mod derived;
mod disk;
#[path = "../../examples/dispute/story.rs"]
mod dispute;
mod events;
mod evidence;
mod foreign;
mod formats;
mod grounds;
mod house;
mod life;
mod locks;
mod outbox;
mod people;
mod policy;
mod refusals;
mod restore;
mod scenarios;
mod streams;
mod templates;
mod threats;
mod vocabulary;
mod witness;
mod workbench;
