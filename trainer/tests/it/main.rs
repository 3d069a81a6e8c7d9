//! The trainer's program, run as a user runs it.

mod commands;
mod kills;
mod support;
