//! What goes through the front door: processes, sockets, files. One binary: linking is the slow part.

mod architecture;
mod by_hand;
mod cases;
mod demo;
mod disk;
#[path = "../../examples/dispute/story.rs"]
mod dispute;
mod events;
mod evidence;
mod foreign;
mod house;
mod life;
mod locks;
mod outbox;
mod people;
mod refusals;
mod restore;
mod streams;
mod templates;
mod threats;
mod vocabulary;
mod witness;
