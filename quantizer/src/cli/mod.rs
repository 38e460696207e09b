//! The `equant` command.
