//! What happened, for people (HTML) and machines (JSON).
