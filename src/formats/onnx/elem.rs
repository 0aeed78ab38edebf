//! ONNX's element types, and what each becomes on the device.

use std::fmt;

use crate::tensor::DType;

/// The element types that can be read. On the device floating-point types are f32,
/// integers i32 (their range is checked on the host) and booleans u32, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    F32,
    F16,
    BF16,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Elem {
    /// From `TensorProto.DataType`.
    pub fn from_code(code: i32) -> Result<Self, String> {
        Ok(match code {
            1 => Elem::F32,
            2 => Elem::U8,
            3 => Elem::I8,
            4 => Elem::U16,
            5 => Elem::I16,
            6 => Elem::I32,
            7 => Elem::I64,
            9 => Elem::Bool,
            10 => Elem::F16,
            11 => Elem::F64,
            12 => Elem::U32,
            13 => Elem::U64,
            16 => Elem::BF16,
            8 => return Err("strings are not supported".to_owned()),
            14 | 15 => return Err("complex numbers are not supported".to_owned()),
            _ => return Err(format!("element type {code} is not supported")),
        })
    }

    /// Size of an element in a file, bytes.
    pub fn bytes(self) -> usize {
        match self {
            Elem::I8 | Elem::U8 | Elem::Bool => 1,
            Elem::F16 | Elem::BF16 | Elem::I16 | Elem::U16 => 2,
            Elem::F32 | Elem::I32 | Elem::U32 => 4,
            Elem::F64 | Elem::I64 | Elem::U64 => 8,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F16 | Elem::BF16 | Elem::F64)
    }

    /// The type on the device.
    pub fn dtype(self) -> DType {
        match self {
            Elem::F32 | Elem::F16 | Elem::BF16 | Elem::F64 => DType::F32,
            Elem::Bool => DType::U32,
            _ => DType::I32,
        }
    }

    /// Smallest and largest value of an integer type, as far as i64 goes.
    pub fn range(self) -> (i64, i64) {
        match self {
            Elem::I8 => (-128, 127),
            Elem::I16 => (-32768, 32767),
            Elem::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Elem::U8 => (0, 255),
            Elem::U16 => (0, 65535),
            Elem::U32 => (0, i64::from(u32::MAX)),
            Elem::U64 => (0, i64::MAX),
            Elem::Bool => (0, 1),
            _ => (i64::MIN, i64::MAX),
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::F32 => "float",
            Elem::F16 => "float16",
            Elem::BF16 => "bfloat16",
            Elem::F64 => "double",
            Elem::I8 => "int8",
            Elem::I16 => "int16",
            Elem::I32 => "int32",
            Elem::I64 => "int64",
            Elem::U8 => "uint8",
            Elem::U16 => "uint16",
            Elem::U32 => "uint32",
            Elem::U64 => "uint64",
            Elem::Bool => "bool",
        })
    }
}
