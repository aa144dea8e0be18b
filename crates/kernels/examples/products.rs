//! Times products on this machine: `cargo run --release -p kernels --example products [threads [isa [filter [rows]]]]`.
//!
//! GB/s count packed weights, GOP/s two operations per weight and row. Several copies of a matrix are cycled through, as a
//! model would, so that small ones come from where they would come from in a pass over the model.

#![expect(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, reason = "a program that measures")]

use std::time::Instant;

use kernels::{Activations, BlockType, Device, Isa, Linear, Matrix, linear};

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |threads| threads.parse().unwrap());
    let isa = args.next().map_or(Isa::detect(), |name| {
        Isa::available().into_iter().find(|isa| format!("{isa:?}").eq_ignore_ascii_case(&name)).unwrap()
    });
    let filter = args.next().unwrap_or_default();
    let rows_of_x = args.next().map_or(vec![1, 2, 4, 8, 16, 64, 512], |m| vec![m.parse().unwrap()]);
    // Bytes of weights that a round reads: more than any second-level cache.
    let round = args.next().map_or(64 << 20, |bytes| bytes.parse().unwrap());
    let dev = Device::with_isa(threads, isa);
    println!("{} threads, {:?}", dev.threads(), dev.isa());
    clock();
    run_overhead(&dev);
    rounding(&dev);
    let shapes = [
        (BlockType::Q4_1, 576, 960),
        (BlockType::Q4_1, 576, 576),
        (BlockType::Q4_1, 576, 3072),
        (BlockType::Q4_1, 1536, 576),
        (BlockType::Q8_0, 576, 49152),
        (BlockType::Q5_0, 640, 4096),
        (BlockType::Q8_0, 640, 262_144),
        (BlockType::Q4_K, 2048, 640),
        (BlockType::Q6_K, 2048, 640),
        (BlockType::Q4_0, 576, 3072),
        (BlockType::F32, 384, 1536),
        (BlockType::F16, 384, 1536),
        (BlockType::BF16, 384, 1536),
    ];
    for (kind, cols, rows) in shapes {
        let name = format!("{kind:?} {cols}x{rows}");
        if name.contains(&filter) {
            time(&dev, &name, (kind, cols, rows), &rows_of_x, round);
        }
    }
}

fn time(dev: &Device, name: &str, (kind, cols, rows): (BlockType, usize, usize), rows_of_x: &[usize], round: usize) {
    let bytes = vec![0x11; kind.bytes_of(rows * cols).unwrap()];
    let mut fastest = f64::MAX;
    let mut pack = || {
        let start = Instant::now();
        let matrix = Matrix::pack(dev, kind, rows, cols, &bytes).unwrap();
        fastest = fastest.min(start.elapsed().as_secs_f64());
        matrix
    };
    let copies: Vec<_> = (0..(round / bytes.len()).max(1)).map(|_| pack()).collect();
    let packed = bytes.len() as f64 / fastest / 1e9;
    print!("{name:22} pack {packed:4.1} GB/s |");
    for &m in rows_of_x {
        let mut x = Activations::new();
        let numbers: Vec<f32> = (0..m * cols).map(|i| (i % 17) as f32 - 8.0).collect();
        x.set(dev, &numbers, cols, &[copies[0].form()]);
        let mut out = vec![0.0; m * rows];
        let seconds = quantile(dev, &copies, &x, &mut out);
        let (gb, done) = (copies[0].bytes() as f64 / seconds / 1e9, (rows * cols) as f64 / seconds / 1e9);
        print!(" {m}: {gb:.1} GB/s {:.0} |", 2.0 * done * m as f64);
    }
    println!();
}

/// What one call takes when nobody else wants the core: the first decile.
fn quantile(dev: &Device, copies: &[Matrix], x: &Activations, out: &mut [f32]) -> f64 {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 20 || begin.elapsed().as_secs_f64() < 0.15 {
        for weight in copies {
            let start = Instant::now();
            linear(dev, x, &mut [Linear { weight, bias: None, out, accumulate: false }]);
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

/// Dependent additions take a cycle each.
fn clock() {
    let mut best = f64::MAX;
    for _ in 0..50 {
        let (start, mut x) = (Instant::now(), std::hint::black_box(1u64));
        for i in 0..100_000u64 {
            x = x.rotate_left(1) ^ i;
        }
        std::hint::black_box(x);
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("200000 dependent steps: {:.1} us", best * 1e6);
}

fn run_overhead(dev: &Device) {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..1000 {
            dev.run(2, &|i| {
                std::hint::black_box(i);
            });
        }
        best = best.min(start.elapsed().as_secs_f64() / 1000.0);
    }
    println!("run of two empty tasks: {:.2} us", best * 1e6);
}

fn rounding(dev: &Device) {
    let (rows, cols) = (512, 576);
    let numbers: Vec<f32> = (0..rows * cols).map(|i| (i % 17) as f32 - 8.0).collect();
    let mut x = Activations::new();
    for m in [1, 512] {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            x.set(dev, &numbers[..m * cols], cols, &[kernels::Form::Int8]);
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("activations {m} x {cols}: {:.2} us", best * 1e6);
    }
}
