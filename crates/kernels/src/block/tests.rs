//! Block types against the values that another reader of GGUF files recorded, and against sizes by hand.

use super::*;

/// Random blocks of every type with their numbers, from the `gguf` package (`tests/data/blocks.py`).
const GOLDEN: &[u8] = include_bytes!("../../tests/data/blocks.bin");

#[test]
fn numbers_equal_those_of_the_gguf_package() {
    let mut rest = GOLDEN;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let word = |i: usize| u32::from_le_bytes(rest[4 * i..4 * i + 4].try_into().unwrap());
        let (kind, size, count) = (BlockType::from_gguf(word(0)).unwrap(), word(1) as usize, word(2) as usize);
        let (bytes, after) = rest[12..].split_at(size);
        let (numbers, after) = after.split_at(4 * count);
        let mut out = vec![0.0; count];
        kind.dequantise(bytes, &mut out);
        let expected: Vec<f32> = numbers.chunks_exact(4).map(f32_number).collect();
        assert_eq!(out, expected, "{kind:?}");
        seen.push(kind);
        rest = after;
    }
    assert_eq!(seen, BlockType::ALL);
}

#[test]
fn sizes_are_checked() {
    assert_eq!(BlockType::Q4_K.bytes_of(512), Some(288));
    assert_eq!(BlockType::Q4_K.bytes_of(500), None);
    assert_eq!(BlockType::F32.bytes_of(usize::MAX), None);
    assert_eq!(BlockType::F32.bytes_of(0), Some(0));
    assert_eq!(BlockType::from_gguf(9), None);
}
