//! Thrift's compact protocol, only walked: what a Parquet file says of sizes is checked before anybody makes room for
//! it.

/// What a walk meets: the field ids from the outermost struct to the field, and its number.
pub type Meet<'m> = &'m mut dyn FnMut(&[i16], i64);

/// Deepest nesting that a footer has any use for.
const MAX_DEPTH: usize = 16;

/// A position in bytes.
pub struct Walk<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl Walk<'_> {
    /// Walks over one struct; false where it is broken or cut. Each element of a list takes at least a byte, so no list
    /// is longer than the bytes.
    pub fn structure(&mut self, path: &mut Vec<i16>, meet: Meet<'_>) -> bool {
        self.walk_struct(path, meet).is_some()
    }

    fn walk_struct(&mut self, path: &mut Vec<i16>, meet: Meet<'_>) -> Option<()> {
        if path.len() > MAX_DEPTH {
            return None;
        }
        let mut id = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => i16::try_from(self.zigzag()?).ok()?,
                delta => id.checked_add(i16::from(delta))?,
            };
            path.push(id);
            match head & 0x0f {
                kind @ (1 | 2) => meet(path, i64::from(kind == 1)),
                kind => self.value(kind, path, meet)?,
            }
            path.pop();
        }
    }

    fn value(&mut self, kind: u8, path: &mut Vec<i16>, meet: Meet<'_>) -> Option<()> {
        match kind {
            1..=3 => drop(self.byte()?),
            4..=6 => {
                let number = self.zigzag()?;
                meet(path, number);
            }
            7 => self.skip(8)?,
            8 => {
                let length = self.varint()?;
                self.skip(length)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.fits(count)?;
                path.push(-1);
                (0..count).try_for_each(|_| self.value(head & 0x0f, path, meet))?;
                path.pop();
            }
            11 => {
                let count = self.varint()?;
                if count > 0 {
                    self.fits(count)?;
                    let kinds = self.byte()?;
                    path.push(-1);
                    (0..count).try_for_each(|_| {
                        self.value(kinds >> 4, path, meet)?;
                        self.value(kinds & 0x0f, path, meet)
                    })?;
                    path.pop();
                }
            }
            12 => self.walk_struct(path, meet)?,
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn fits(&self, length: u64) -> Option<()> {
        (length <= (self.bytes.len() - self.at) as u64).then_some(())
    }

    fn skip(&mut self, length: u64) -> Option<()> {
        self.fits(length)?;
        self.at += usize::try_from(length).ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_met_with_their_path_and_lists_that_cannot_be_are_refused() {
        // {1: i32 3, 5: {1: i32 -1, 2: true}, 6: list of two i32}
        let bytes = [0x15, 6, 0x4c, 0x15, 1, 0x11, 0, 0x19, 0x25, 2, 4, 0];
        let mut met = Vec::new();
        let mut walk = Walk { bytes: &bytes, at: 0 };
        assert!(walk.structure(&mut Vec::new(), &mut |path, number| met.push((path.to_vec(), number))));
        assert_eq!(walk.at, bytes.len());
        assert_eq!(met, [(vec![1], 3), (vec![5, 1], -1), (vec![5, 2], 1), (vec![6, -1], 1), (vec![6, -1], 2)]);
        for cut in 0..bytes.len() {
            assert!(!Walk { bytes: &bytes[..cut], at: 0 }.structure(&mut Vec::new(), &mut |_, _| {}), "{cut}");
        }
        let endless = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0];
        assert!(!Walk { bytes: &endless, at: 0 }.structure(&mut Vec::new(), &mut |_, _| {}), "2^31 structs in 2 bytes");
        let deep = [0x1c; 1000];
        assert!(!Walk { bytes: &deep, at: 0 }.structure(&mut Vec::new(), &mut |_, _| {}), "nested without end");
    }
}
