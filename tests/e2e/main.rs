//! The promises of Windrow, each tried on the real program from outside: real loggers, a real Elasticsearch,
//! real crashes.
