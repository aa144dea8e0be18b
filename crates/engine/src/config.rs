//! What an operator may set, each with a default and a unit.

/// Settings of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The name requests use for the model. Default: the file's or directory's name without its extension.
    pub name: String,
    /// Threads for the arithmetic, the engine's own included. Default: 0, which takes one per available core.
    pub threads: usize,
    /// Memory for keys and values in bytes, prefix cache included. Touched only as it is used. Default: 1 GiB.
    pub kv_bytes: u64,
    /// Answers generated at the same time; more wait in the queue. Default: 64.
    pub max_sequences: usize,
    /// Prompt tokens of one step while no answer is being generated. Default: 512.
    pub prefill_rows: usize,
    /// Prompt tokens of one step while answers are being generated: small steps keep the tokens of running answers coming.
    /// Default: 128.
    pub mixed_rows: usize,
    /// Requests that may wait; one more is refused as overloaded. Default: 256.
    pub queue_limit: usize,
    /// Keep the pages of ended sequences for prompts that begin alike. Default: on.
    pub prefix_cache: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            threads: 0,
            kv_bytes: 1 << 30,
            max_sequences: 64,
            prefill_rows: 512,
            mixed_rows: 128,
            queue_limit: 256,
            prefix_cache: true,
        }
    }
}

impl EngineConfig {
    /// The same with zeros that would stop all work raised to one.
    pub(crate) fn usable(mut self) -> Self {
        for least_one in [&mut self.max_sequences, &mut self.prefill_rows, &mut self.mixed_rows] {
            *least_one = (*least_one).max(1);
        }
        self
    }
}
