//! Packing is lossless: rows come back as the block type's own numbers, to the bit.

use proptest::prelude::*;

use super::*;
use crate::testing::random_bytes;

fn check_lossless(kind: BlockType, rows: usize, blocks: usize, threads: usize, seed: u64) {
    let cols = blocks * kind.block_len();
    let bytes = random_bytes(kind, rows * cols, seed);
    let dev = Device::new(threads);
    let matrix = Matrix::pack(&dev, kind, rows, cols, &bytes).unwrap();
    let read = |offset: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[offset..offset + out.len()]);
        Ok::<_, Error>(())
    };
    let read = Matrix::pack_from(&dev, kind, rows, cols, &read).unwrap();
    assert_eq!(matrix.data.bytes(), read.data.bytes());
    let mut expected = vec![0.0; rows * cols];
    kind.dequantise(&bytes, &mut expected);
    let mut out = vec![0.0; cols];
    for row in 0..rows {
        matrix.row(row, &mut out);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&expected[row * cols..][..cols]), "{kind:?} row {row}");
    }
}

#[test]
fn packing_loses_nothing() {
    for kind in BlockType::ALL {
        for (rows, blocks) in [(1, 1), (16, 2), (35, 3), (0, 1)] {
            check_lossless(kind, rows, blocks, 2, 7);
        }
    }
}

proptest! {
    #[test]
    fn packing_loses_nothing_in_any_shape(kind in 0..BlockType::ALL.len(), rows in 1usize..70, blocks in 1usize..7, seed: u64) {
        check_lossless(BlockType::ALL[kind], rows, blocks, 3, seed);
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let dev = Device::new(1);
    let pack = |kind, rows, cols, bytes: usize| Matrix::pack(&dev, kind, rows, cols, &vec![0; bytes]).unwrap_err();
    assert_eq!(
        pack(BlockType::Q4_K, 1, 100, 0).to_string(),
        "100 columns are not a multiple of 256, the block length of Q4_K"
    );
    assert_eq!(pack(BlockType::Q8_0, 2, 32, 67).to_string(), "a 2 x 32 matrix of Q8_0 needs 68 bytes, got 67");
    assert!(matches!(pack(BlockType::F32, usize::MAX, 1 << 40, 1), Error::Length { .. }));
}

#[test]
fn an_error_while_reading_is_returned() {
    #[derive(Debug, PartialEq)]
    struct Cut(usize);
    impl From<Error> for Cut {
        fn from(_: Error) -> Self {
            Self(0)
        }
    }
    let dev = Device::new(2);
    let read = |offset, _: &mut [u8]| if offset == 0 { Ok(()) } else { Err(Cut(offset)) };
    let packed = Matrix::pack_from(&dev, BlockType::F32, 4000, 64, &read);
    assert!(matches!(packed, Err(Cut(offset)) if offset > 0));
}
