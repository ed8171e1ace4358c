//! Codes of fewer than 8 bits: how they lie in memory (R43), and products of binary ones (R44).

use crate::operand::expect_len;
use crate::shape::product;
use crate::{CodeType, Error};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// The codes that may be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NarrowType {
    /// −8..=7.
    I4,
    /// 0..=15.
    U4,
    /// −2..=1.
    I2,
    /// 0..=3.
    U2,
    /// −1, 0 and 1.
    Ternary,
    /// −1 and 1, but not 0.
    Binary,
}

impl NarrowType {
    /// All of them.
    pub const ALL: [NarrowType; 6] =
        [NarrowType::I4, NarrowType::U4, NarrowType::I2, NarrowType::U2, NarrowType::Ternary, NarrowType::Binary];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            NarrowType::I4 => "i4",
            NarrowType::U4 => "u4",
            NarrowType::I2 => "i2",
            NarrowType::U2 => "u2",
            NarrowType::Ternary => "ternary",
            NarrowType::Binary => "binary",
        }
    }

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            NarrowType::I4 | NarrowType::U4 => 4,
            NarrowType::I2 | NarrowType::U2 | NarrowType::Ternary => 2,
            NarrowType::Binary => 1,
        }
    }

    /// The smallest code.
    pub const fn lo(self) -> i8 {
        match self {
            NarrowType::I4 => -8,
            NarrowType::I2 => -2,
            NarrowType::U4 | NarrowType::U2 => 0,
            NarrowType::Ternary | NarrowType::Binary => -1,
        }
    }

    /// The largest code.
    pub const fn hi(self) -> i8 {
        match self {
            NarrowType::I4 => 7,
            NarrowType::U4 => 15,
            NarrowType::U2 => 3,
            NarrowType::I2 | NarrowType::Ternary | NarrowType::Binary => 1,
        }
    }

    /// Whether a number is one of these codes.
    pub fn contains(self, code: i8) -> bool {
        (self.lo()..=self.hi()).contains(&code) && !(self == NarrowType::Binary && code == 0)
    }

    fn mask(self) -> u8 {
        (1 << self.bits()) - 1
    }

    /// R43: the bits of a code.
    fn field(self, code: i8) -> u8 {
        match self {
            NarrowType::Binary => u8::from(code < 0),
            _ => code as u8 & self.mask(),
        }
    }

    /// The code that a field stands for.
    fn code(self, field: u8) -> i8 {
        let unused = 8 - self.bits();
        match self {
            NarrowType::Binary => 1 - 2 * field as i8,
            NarrowType::U4 | NarrowType::U2 => field as i8,
            NarrowType::I4 | NarrowType::I2 | NarrowType::Ternary => (field << unused) as i8 >> unused,
        }
    }

    fn check(self, what: &'static str, index: usize, code: i8) -> Result<(), Error> {
        if self.contains(code) {
            return Ok(());
        }
        let expected = match self {
            NarrowType::Binary => "-1 or 1".into(),
            _ => alloc::format!("a value in {}..={}", self.lo(), self.hi()),
        };
        Err(Error::Code { what, index, got: code.into(), expected })
    }
}

impl fmt::Display for NarrowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Rule R43: rows of narrow codes, two, four or eight to the byte.
///
/// Code i of a row is field i mod n of byte i / n, n = 8 / bits, the first in the least significant bits. Each row
/// begins with a byte of its own; bits after its last code are 0. Negative codes are in two's complement; of binary
/// codes 1 is the bit 0 and −1 the bit 1, the sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedCodes {
    codes: NarrowType,
    rows: usize,
    row_len: usize,
    // Invariant: `rows` rows, fields that are codes, zeros after each row.
    bytes: Vec<u8>,
}

impl PackedCodes {
    /// Packs rows of `row_len` codes each.
    ///
    /// # Errors
    /// [`Error::Code`] for the first number that is no such code (of binary codes also 0, which `sign` functions with
    /// three results produce); rows of no codes, or codes that are no whole rows.
    pub fn pack(codes: NarrowType, row_len: usize, values: &[i8]) -> Result<PackedCodes, Error> {
        if row_len == 0 || !values.len().is_multiple_of(row_len) {
            let expected = alloc::format!("whole rows of {row_len} codes, at least one a row");
            return Err(Error::Length { what: "codes to pack", got: values.len(), expected });
        }
        values.iter().enumerate().try_for_each(|(index, &code)| codes.check("code to pack", index, code))?;
        let per_byte = 8 / codes.bits();
        let byte = |fields: &[i8]| {
            fields.iter().rev().fold(0u8, |byte, &code| (u16::from(byte) << codes.bits()) as u8 | codes.field(code))
        };
        let bytes = values.chunks_exact(row_len).flat_map(|row| row.chunks(per_byte).map(byte)).collect();
        Ok(PackedCodes { codes, rows: values.len() / row_len, row_len, bytes })
    }

    /// Codes that are packed already.
    ///
    /// # Errors
    /// Bytes that are not `rows` rows, bits after a row that are not 0, fields that are no code (of ternary codes −2).
    pub fn from_bytes(codes: NarrowType, rows: usize, row_len: usize, bytes: Vec<u8>) -> Result<PackedCodes, Error> {
        if row_len == 0 {
            return Err(Error::Extent { what: "codes of a row", got: 0, expected: "at least 1".into() });
        }
        product("packed codes", &[rows, row_len])?;
        let packed = PackedCodes { codes, rows, row_len, bytes };
        expect_len("packed bytes", packed.bytes.len(), rows * packed.row_bytes())?;
        let used = row_len * codes.bits() % 8;
        for (index, row) in packed.bytes.chunks_exact(packed.row_bytes()).enumerate() {
            let after = if used == 0 { 0 } else { row[row.len() - 1] >> used };
            if after != 0 {
                let expected = "0".into();
                return Err(Error::Code { what: "padding after packed row", index, got: after.into(), expected });
            }
        }
        if codes == NarrowType::Ternary {
            packed.iter().enumerate().try_for_each(|(index, code)| codes.check("packed code", index, code))?;
        }
        Ok(packed)
    }

    /// Which codes they are.
    pub fn codes(&self) -> NarrowType {
        self.codes
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Codes of a row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_len.div_ceil(8 / self.codes.bits())
    }

    /// The bytes, `[rows, row_bytes]`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.row_bytes()..][..self.row_bytes()]
    }

    fn iter(&self) -> impl Iterator<Item = i8> + '_ {
        let (bits, per_byte) = (self.codes.bits(), 8 / self.codes.bits());
        self.bytes.chunks_exact(self.row_bytes().max(1)).flat_map(move |row| {
            (0..self.row_len)
                .map(move |i| self.codes.code(row[i / per_byte] >> (bits * (i % per_byte)) & self.codes.mask()))
        })
    }

    /// The codes, `[rows, row_len]`.
    pub fn unpack(&self) -> Vec<i8> {
        let mut codes = vec![0; self.rows * self.row_len];
        codes.iter_mut().zip(self.iter()).for_each(|(to, code)| *to = code);
        codes
    }

    /// The codes as signed weights of a [`Layer`](crate::Layer), and their zero points: of unsigned codes both are
    /// less half the range, which leaves every difference as it is (R4).
    ///
    /// # Errors
    /// Zero points of unsigned codes that are no codes.
    pub fn signed_weights(&self, zero_points: &[i32]) -> Result<(Vec<i8>, Vec<i32>), Error> {
        let (mut weight, mut zero_points) = (self.unpack(), zero_points.to_vec());
        if let NarrowType::U4 | NarrowType::U2 = self.codes {
            let codes = CodeType::new(self.codes.bits() as u8, false)?;
            zero_points.iter().try_for_each(|&zero_point| codes.check("weight zero point", zero_point))?;
            let half = 1 << (self.codes.bits() - 1);
            weight.iter_mut().for_each(|code| *code -= half);
            zero_points.iter_mut().for_each(|zero_point| *zero_point -= i32::from(half));
        }
        Ok((weight, zero_points))
    }
}

/// Rule R44: `Σ x·w` over `len` binary codes, `len − 2 · popcount(x XOR w)`, wrapping in int32.
///
/// Bits after the last code may be anything that is the same in both, as the zeros of [`PackedCodes`] are.
pub fn binary_dot(x: &[u8], w: &[u8], len: usize) -> i32 {
    let differ = x.iter().zip(w).fold(0u32, |sum, (x, w)| sum.wrapping_add((x ^ w).count_ones()));
    (len as i32).wrapping_sub(differ.wrapping_mul(2) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use quickcheck::quickcheck;

    #[test]
    fn bytes_by_hand() {
        let bytes = |codes, row_len, values: &[i8]| PackedCodes::pack(codes, row_len, values).unwrap().bytes;
        assert_eq!(bytes(NarrowType::I4, 3, &[1, -1, -8, 7, 0, 2]), [0xf1, 0x08, 0x07, 0x02]);
        assert_eq!(bytes(NarrowType::U4, 2, &[15, 8]), [0x8f]);
        assert_eq!(bytes(NarrowType::I2, 5, &[1, 0, -1, -2, -1]), [0b10_11_00_01, 0b11]);
        assert_eq!(bytes(NarrowType::U2, 1, &[3, 2]), [3, 2]);
        assert_eq!(bytes(NarrowType::Ternary, 2, &[-1, 1]), [0b01_11]);
        assert_eq!(bytes(NarrowType::Binary, 9, &[1, -1, 1, 1, 1, 1, 1, -1, -1]), [0x82, 1]);
    }

    quickcheck! {
        fn packing_loses_nothing(values: Vec<i8>, row_len: usize, which: usize) -> bool {
            let codes = NarrowType::ALL[which % 6];
            let row_len = 1 + row_len % 20;
            let values: Vec<i8> = values.into_iter().map(|v| codes.code(v as u8 & codes.mask()))
                .map(|v| if codes.contains(v) { v } else { 0 }).collect();
            let values = &values[..values.len() / row_len * row_len];
            let packed = PackedCodes::pack(codes, row_len, values).unwrap();
            let again = PackedCodes::from_bytes(codes, packed.rows(), row_len, packed.bytes.clone()).unwrap();
            packed.unpack() == values && again == packed
        }

        fn binary_dot_is_the_sum_of_products(bits: Vec<(bool, bool)>) -> bool {
            let code = |bit: bool| if bit { 1i8 } else { -1 };
            let (x, w): (Vec<i8>, Vec<i8>) = bits.into_iter().map(|(x, w)| (code(x), code(w))).unzip();
            let pack = |v: &[i8]| PackedCodes::pack(NarrowType::Binary, v.len().max(1), v).unwrap();
            let sum: i32 = x.iter().zip(&w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
            binary_dot(pack(&x).bytes(), pack(&w).bytes(), x.len()) == sum
        }

        fn unsigned_weights_keep_their_differences(values: Vec<u8>, zero_point: u8) -> bool {
            let values: Vec<i8> = values.into_iter().map(|v| v as i8 & 15).collect();
            let zero_point = i32::from(zero_point & 15);
            let packed = PackedCodes::pack(NarrowType::U4, 1, &values).unwrap();
            let (weight, zero_points) = packed.signed_weights(&[zero_point]).unwrap();
            weight.iter().zip(&values).all(|(&w, &v)| i32::from(w) - zero_points[0] == i32::from(v) - zero_point)
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let refused = |codes, values: &[i8]| PackedCodes::pack(codes, 1, values).unwrap_err().to_string();
        assert_eq!(refused(NarrowType::I4, &[7, 8]), "code to pack 1 is 8, expected a value in -8..=7");
        assert_eq!(refused(NarrowType::U2, &[-1]), "code to pack 0 is -1, expected a value in 0..=3");
        assert_eq!(refused(NarrowType::Ternary, &[0, 1, -2]), "code to pack 2 is -2, expected a value in -1..=1");
        assert_eq!(refused(NarrowType::Binary, &[1, 0]), "code to pack 1 is 0, expected -1 or 1");
        assert!(PackedCodes::pack(NarrowType::I4, 0, &[]).is_err());
        assert!(PackedCodes::pack(NarrowType::I4, 2, &[0; 3]).is_err());
        let read = |codes, rows, row_len, bytes: &[u8]| {
            PackedCodes::from_bytes(codes, rows, row_len, bytes.to_vec()).unwrap_err().to_string()
        };
        assert_eq!(read(NarrowType::Ternary, 1, 2, &[0b1001]), "packed code 1 is -2, expected a value in -1..=1");
        assert_eq!(read(NarrowType::I4, 2, 1, &[1, 0x21]), "padding after packed row 1 is 2, expected 0");
        assert_eq!(read(NarrowType::Binary, 2, 9, &[0; 3]), "packed bytes has 3 elements, expected 4");
        assert!(PackedCodes::from_bytes(NarrowType::I4, 1, 0, vec![]).is_err());
        assert!(PackedCodes::from_bytes(NarrowType::I4, usize::MAX, 3, vec![]).is_err());
        let packed = PackedCodes::pack(NarrowType::U4, 1, &[3]).unwrap();
        assert!(packed.signed_weights(&[16]).is_err() && packed.signed_weights(&[-1]).is_err());
    }
}
