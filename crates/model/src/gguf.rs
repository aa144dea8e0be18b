//! The GGUF header, read with suspicion.
//!
//! A header is untrusted input: every length is compared with what is left of the file before anything is allocated for it,
//! names are checked, and every tensor must lie inside the file, aligned and apart from all others. Nothing here panics, and
//! nothing is mapped: the header comes through any [`Read`], the weights later by positional reads, so that a file that shrinks
//! while in use gives an error and never a fault. The fuzzer calls [`Header::read`] on arbitrary bytes.
//!
//! Layout (versions 2 and 3, little endian): magic, version, counts, metadata pairs, tensor descriptions, padding to the
//! alignment, data.

use std::collections::BTreeMap;
use std::io::Read;

use kernels::BlockType;

use crate::Problem;
use crate::tensors::{TensorInfo, check_layout};
use crate::value::Value;

/// First bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// No honest header is longer: the largest vocabularies take about 20 MB.
const MAX_HEADER: u64 = 1 << 29;
/// Lists inside lists inside lists are nobody's metadata.
const MAX_NESTING: usize = 3;
/// GGUF's own limit on the dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Lists and texts are read in pieces of this size, so that a length is only believed as far as there are bytes.
const PIECE: usize = 1 << 16;

/// All that a GGUF file says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, in the order of the file. Offsets count from the start of the file.
    pub tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads and checks a header. `reader` stands at the start of a file of `file_len` bytes and should be buffered; tensor data
    /// is not read.
    ///
    /// # Errors
    /// [`Problem`] for anything that is not a sound GGUF file of a supported version whose tensors all lie inside `file_len`.
    pub fn read(reader: &mut impl Read, file_len: u64) -> Result<Self, Problem> {
        let mut input = Input { reader, at: 0, end: file_len.min(MAX_HEADER) };
        let version = read_version(&mut input)?;
        let n_tensors = input.count(24, "tensors")?;
        let n_fields = input.count(13, "metadata fields")?;
        let metadata = read_metadata(&mut input, n_fields)?;
        let drafts = (0..n_tensors).map(|_| read_tensor(&mut input)).collect::<Result<Vec<_>, _>>()?;
        let alignment = alignment(&metadata)?;
        let data_start = input.at.div_ceil(alignment) * alignment;
        let mut tensors = Vec::with_capacity(drafts.len());
        for draft in drafts {
            tensors.push(draft.place(data_start, alignment)?);
        }
        check_layout(&tensors, file_len)?;
        Ok(Self { version, metadata, tensors })
    }
}

fn read_version<R: Read>(input: &mut Input<'_, R>) -> Result<u32, Problem> {
    let magic = input.array::<4>("the magic")?;
    if magic != MAGIC {
        return Err(Problem::NotACheckpoint("it does not begin with GGUF".into()));
    }
    match input.u32("the version")? {
        version @ 2..=3 => Ok(version),
        version if matches!(version.swap_bytes(), 1..=3) => Err(input.broken("the file is big-endian")),
        version => Err(input.broken(format!("GGUF version {version}, supported are 2 and 3"))),
    }
}

fn read_metadata<R: Read>(input: &mut Input<'_, R>, n: u64) -> Result<BTreeMap<String, Value>, Problem> {
    let mut metadata = BTreeMap::new();
    for _ in 0..n {
        let key = input.text("a metadata key")?;
        let kind = input.u32("a metadata type")?;
        let value = read_value(input, kind, 0)?;
        if metadata.contains_key(&key) {
            return Err(input.broken(format!("metadata {key} stands there twice")));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, Problem> {
    const KEY: &str = "general.alignment";
    match metadata.get(KEY) {
        None => Ok(32),
        Some(Value::Integer(n)) if (1..=1 << 20).contains(n) && n.count_ones() == 1 => Ok(n.unsigned_abs()),
        Some(other) => Err(Problem::field(KEY, format!("is {other:?}, expected a power of two"))),
    }
}

/// GGUF's value types that are numbers of a fixed size, and how one is decoded.
#[derive(Clone, Copy)]
enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

impl Scalar {
    fn from_id(id: u32) -> Option<Self> {
        let all = [Self::U8, Self::I8, Self::U16, Self::I16, Self::U32, Self::I32, Self::F32, Self::Bool];
        match id {
            0..=7 => all.get(id as usize).copied(),
            10 => Some(Self::U64),
            11 => Some(Self::I64),
            12 => Some(Self::F64),
            _ => None,
        }
    }

    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// `bytes` has the scalar's size.
    fn decode(self, bytes: &[u8]) -> Value {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        match self {
            Self::Bool => Value::Bool(unsigned != 0),
            // Nothing in the format is that large; saturating keeps one integer type.
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Integer(i64::try_from(unsigned).unwrap_or(i64::MAX)),
            Self::I8 => Value::Integer(i64::from(wide[0].cast_signed())),
            Self::I16 => Value::Integer(i64::from(i16::from_le_bytes([wide[0], wide[1]]))),
            Self::I32 => Value::Integer(i64::from(i32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]))),
            Self::I64 => Value::Integer(unsigned.cast_signed()),
            Self::F32 => Value::Float(f64::from(f32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]))),
            Self::F64 => Value::Float(f64::from_bits(unsigned)),
        }
    }
}

fn read_value<R: Read>(input: &mut Input<'_, R>, kind: u32, depth: usize) -> Result<Value, Problem> {
    match (Scalar::from_id(kind), kind) {
        (Some(scalar), _) => Ok(scalar.decode(&input.piece(scalar.size(), "a metadata value")?)),
        (None, TEXT) => Ok(Value::Text(input.text("a metadata text")?)),
        (None, LIST) if depth < MAX_NESTING => read_list(input, depth + 1),
        (None, LIST) => Err(input.broken("metadata lists are nested too deeply")),
        _ => Err(input.broken(format!("unknown metadata type {kind}"))),
    }
}

fn read_list<R: Read>(input: &mut Input<'_, R>, depth: usize) -> Result<Value, Problem> {
    let kind = input.u32("a list's type")?;
    match (Scalar::from_id(kind), kind) {
        (Some(scalar), _) => read_numbers(input, scalar),
        (None, TEXT) => {
            let n = input.count(8, "texts of a list")?;
            Ok(Value::Texts((0..n).map(|_| input.text("a text of a list")).collect::<Result<_, _>>()?))
        }
        (None, LIST) => {
            let n = input.count(12, "lists of a list")?;
            Ok(Value::Lists((0..n).map(|_| read_value(input, LIST, depth)).collect::<Result<_, _>>()?))
        }
        _ => Err(input.broken(format!("unknown metadata type {kind}"))),
    }
}

fn read_numbers<R: Read>(input: &mut Input<'_, R>, scalar: Scalar) -> Result<Value, Problem> {
    let mut left = input.count(scalar.size() as u64, "numbers of a list")?;
    let (mut integers, mut floats) = (Vec::new(), Vec::new());
    while left > 0 {
        let n = left.min((PIECE / scalar.size()) as u64);
        let bytes = input.piece(n as usize * scalar.size(), "numbers of a list")?;
        for number in bytes.chunks_exact(scalar.size()) {
            match scalar.decode(number) {
                Value::Float(x) => floats.push(x as f32),
                Value::Bool(b) => integers.push(i64::from(b)),
                Value::Integer(n) => integers.push(n),
                _ => {}
            }
        }
        left -= n;
    }
    let is_float = matches!(scalar, Scalar::F32 | Scalar::F64);
    Ok(if is_float { Value::Floats(floats) } else { Value::Integers(integers) })
}

/// A tensor's description before it is known where data start.
struct Draft {
    name: String,
    kind: BlockType,
    shape: Vec<usize>,
    offset: u64,
}

fn read_tensor<R: Read>(input: &mut Input<'_, R>) -> Result<Draft, Problem> {
    let name = input.text("a tensor's name")?;
    let n_dims = input.u32("a tensor's dimensions")?;
    if !(1..=MAX_DIMENSIONS).contains(&n_dims) {
        return Err(Problem::tensor(name, format!("has {n_dims} dimensions, expected 1 to {MAX_DIMENSIONS}")));
    }
    let mut shape = Vec::with_capacity(n_dims as usize);
    for _ in 0..n_dims {
        let dim = input.u64("a tensor's dimension")?;
        shape.push(usize::try_from(dim).map_err(|_| Problem::tensor(&name, format!("has a dimension of {dim}")))?);
    }
    shape.reverse(); // GGUF names the fastest dimension first
    let id = input.u32("a tensor's type")?;
    let offset = input.u64("a tensor's offset")?;
    let kind = BlockType::from_gguf(id).ok_or_else(|| Problem::Type { tensor: name.clone(), kind: type_name(id) })?;
    Ok(Draft { name, kind, shape, offset })
}

impl Draft {
    fn place(self, data_start: u64, alignment: u64) -> Result<TensorInfo, Problem> {
        if !self.offset.is_multiple_of(alignment) {
            let what = format!("offset {} is not a multiple of the alignment {alignment}", self.offset);
            return Err(Problem::tensor(self.name, what));
        }
        let offset = data_start.checked_add(self.offset);
        let offset = offset.ok_or_else(|| Problem::tensor(&self.name, "offset overflows"))?;
        TensorInfo::new(self.name, self.kind, self.shape, offset)
    }
}

/// Names for what we cannot read, so that the error tells more than a number.
fn type_name(id: u32) -> String {
    const NAMES: [(u32, &str); 20] = [
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
    ];
    let name = NAMES.iter().find(|(known, _)| *known == id);
    name.map_or_else(|| format!("type number {id}"), |(_, name)| (*name).to_owned())
}

/// A reader that knows where it is and how much may still come.
struct Input<'r, R> {
    reader: &'r mut R,
    at: u64,
    end: u64,
}

impl<R: Read> Input<'_, R> {
    fn broken(&self, what: impl Into<String>) -> Problem {
        Problem::Header { at: self.at, what: what.into() }
    }

    /// Checks that `bytes` more bytes can come, before anybody allocates for them.
    fn claim(&self, bytes: u64, what: &str) -> Result<(), Problem> {
        let left = self.end - self.at;
        if bytes > left {
            return Err(self.broken(format!("{what} would take {bytes} bytes, {left} are left")));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Problem> {
        self.claim(buffer.len() as u64, what)?;
        self.reader.read_exact(buffer).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => self.broken(format!("the file ends inside {what}")),
            _ => source.into(),
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Problem> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// At most [`PIECE`] bytes.
    fn piece(&mut self, len: usize, what: &str) -> Result<Vec<u8>, Problem> {
        self.claim(len as u64, what)?;
        let mut bytes = vec![0; len.min(PIECE)];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// A number of things that take at least `least` bytes each.
    fn count(&mut self, least: u64, what: &str) -> Result<u64, Problem> {
        let n = self.u64(what)?;
        self.claim(n.saturating_mul(least), what)?;
        Ok(n)
    }

    fn text(&mut self, what: &str) -> Result<String, Problem> {
        let len = self.count(1, what)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let rest = (len - bytes.len() as u64).min(PIECE as u64) as usize;
            let start = bytes.len();
            bytes.resize(start + rest, 0);
            self.fill(&mut bytes[start..], what)?;
        }
        String::from_utf8(bytes).map_err(|_| self.broken(format!("{what} is not UTF-8")))
    }
}
