//! The block types that checkpoints store, as GGUF defines them (`ggml-common.h` of the GGUF specification).

/// How a checkpoint stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names the field uses")]
#[expect(missing_docs, reason = "the names say it all")]
#[non_exhaustive]
pub enum BlockType { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K }

impl BlockType {
    /// Numbers in a block.
    pub fn block_len(self) -> usize { unimplemented!() }
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize { unimplemented!() }
    /// GGUF's number for it (`ggml_type`), if this crate reads that type.
    pub fn from_gguf(_id: u32) -> Option<Self> { unimplemented!() }
    /// Bytes of `n` numbers, `None` if they are not whole blocks or the size overflows.
    pub fn bytes_of(self, _n: usize) -> Option<usize> { unimplemented!() }
    /// Unpacks whole blocks to f32, exactly (the scalar reference). `bytes.len()` is `out.len()` numbers' worth.
    pub fn dequantise(self, _bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
}
