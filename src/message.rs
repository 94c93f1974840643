//! MIME to summary: what a notification shows of a message. Pure functions over bytes that anybody may have sent.
