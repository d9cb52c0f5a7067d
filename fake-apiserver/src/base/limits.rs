//! Every limit, with its unit and what happens at it.

use std::time::Duration;

/// Bytes of a request body; 413 beyond. Upstream's `MaxRequestBodyBytes`.
pub const BODY_BYTES: usize = 3 * 1024 * 1024;

/// Bytes of what a conversion webhook is asked; an API server sends a list whole, and a page of it has 500 objects.
pub const CONVERSION_BYTES: usize = 64 * 1024 * 1024;

/// Levels of nesting in a body; 400 beyond. Bounds the stack of everything that walks an object.
pub const DEPTH: usize = 100;

/// Series of the metrics of requests (one for each verb, resource, code …); what is beyond is not counted.
pub const METRIC_SERIES: usize = 10_000;

/// Messages in a protobuf body; 400 beyond. An empty one takes two bytes there and a thousand in memory.
pub const PROTOBUF_MESSAGES: usize = 200_000;

/// Operations of one JSON patch; 413 beyond. Upstream's `maxJSONPatchOperations`.
pub const JSON_PATCH_OPERATIONS: usize = 10_000;

/// Estimated cost of one CEL rule or message, for all values that an object may have; 422 beyond. Upstream's
/// `StaticEstimatedCostLimit`.
pub const RULE_COST: u64 = 10_000_000;

/// Estimated cost of all CEL rules of a schema; 422 beyond. Upstream's `StaticEstimatedCRDCostLimit`.
pub const SCHEMA_RULES_COST: u64 = 100_000_000;

/// Events kept for each resource; a watch or page from before them gets 410.
pub const EVENT_LOG: usize = 10_000;

/// How long a client may take to send its request head, and to finish a TLS handshake; the connection is closed after.
pub const REQUEST_HEAD: Duration = Duration::from_secs(10);

/// Bytes of all `metadata.annotations` together; 422 beyond. Upstream's `TotalAnnotationSizeLimitB`.
pub const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Bytes of a ConfigMap's or Secret's data; 422 beyond. Upstream's `MaxSecretSize`.
pub const DATA_BYTES: usize = 1024 * 1024;

/// Bytes that a pod's log keeps for each container; the oldest lines go first.
pub const LOG_BYTES: usize = 10 * 1024 * 1024;

/// Bytes of a stream (exec, attach, port-forward) that are buffered for a slow reader; the writer waits beyond.
pub const STREAM_BYTES: usize = 64 * 1024;

/// Ports of one port-forward over the channels of a WebSocket; 400 beyond. Two channels each, which a byte numbers.
pub const FORWARDED_PORTS: usize = 127;

/// Streams of a SPDY connection at a time; the next one is refused. A port-forward takes two for each connection.
pub const SPDY_STREAMS: usize = 1000;

/// Objects in one review of a conversion webhook; more are asked about in another.
pub const CONVERSION_BATCH: usize = 500;

/// What one evaluation of a CEL expression may cost; it is stopped beyond. Upstream's `PerCallLimit`.
pub const RULE_RUN_COST: u64 = 1_000_000;

/// What all evaluations for one object, or one binding of a policy, may cost together. Upstream's `RuntimeCELCostBudget`.
pub const RULES_RUN_COST: u64 = 10_000_000;

/// Connections at the HTTPS door at a time; the next one waits to be accepted.
pub const CONNECTIONS: usize = 1024;

/// Requests at a time on one HTTP/2 connection; the client holds the next one back. Upstream's
/// `--http2-max-streams-per-connection` default.
pub const STREAMS_PER_CONNECTION: u32 = 1000;

/// How long an HTTP/2 connection may be silent before the server asks whether anybody is there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Rules in force at a time; the next is refused.
pub const RULES: usize = 1000;
