//! A server that does every wrong thing at every step: each message is still announced once, and nothing hangs.
mod support;
