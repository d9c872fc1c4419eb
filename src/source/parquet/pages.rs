//! The pages of a column chunk: each is checked against its caps before room is made for it, and no codec writes more
//! than the page has said.

use std::{
    io::{self, Read as _},
    sync::Arc,
};

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, Type},
    column::page::{Page, PageIterator, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::metadata::ColumnChunkMetaData,
};

use super::{ReadAt, thrift::Walk};

/// Largest page, as it is stored and unpacked.
pub const MAX_PAGE: usize = 64 << 20;
/// Longest page header.
const MAX_HEADER: usize = 1 << 20;
/// What is read of a header at first.
const HEADER: usize = 512;

/// The pages of one column, row group after row group.
pub struct Chunks {
    pub file: Arc<dyn ReadAt>,
    pub chunks: std::vec::IntoIter<ColumnChunkMetaData>,
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;
    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunks.next()?;
        Some(Pages::new(self.file.clone(), &chunk).map(|pages| Box::new(pages) as _))
    }
}

impl PageIterator for Chunks {}

/// The pages of one chunk.
struct Pages {
    file: Arc<dyn ReadAt>,
    column: String,
    codec: Compression,
    kind: Type,
    nullable: bool,
    at: u64,
    end: u64,
    next: Option<(Header, usize)>,
}

/// A page's header.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    kind: i64,
    unpacked: i64,
    packed: i64,
    values: i64,
    encoding: i64,
    definition_encoding: i64,
    sorted: i64,
    // of version 2
    nulls: i64,
    rows: i64,
    definition_bytes: i64,
    repetition_bytes: i64,
    is_compressed: i64,
}

impl Header {
    const DATA: i64 = 0;
    const INDEX: i64 = 1;
    const DICTIONARY: i64 = 2;
    const DATA_V2: i64 = 3;

    /// The header at the start, and its length.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut header = Self { is_compressed: 1, ..Self::default() };
        let mut walk = Walk { bytes, at: 0 };
        let whole = walk.structure(&mut Vec::new(), &mut |path, number| {
            let field = match path {
                [1] => &mut header.kind,
                [2] => &mut header.unpacked,
                [3] => &mut header.packed,
                [5 | 7 | 8, 1] => &mut header.values,
                [5 | 7, 2] | [8, 4] => &mut header.encoding,
                [5, 3] => &mut header.definition_encoding,
                [7, 3] => &mut header.sorted,
                [8, 2] => &mut header.nulls,
                [8, 3] => &mut header.rows,
                [8, 5] => &mut header.definition_bytes,
                [8, 6] => &mut header.repetition_bytes,
                [8, 7] => &mut header.is_compressed,
                _ => return,
            };
            *field = number;
        });
        whole.then_some((header, walk.at))
    }
}

impl Pages {
    fn new(file: Arc<dyn ReadAt>, chunk: &ColumnChunkMetaData) -> Result<Self> {
        let column = chunk.column_descr();
        let name = column.name().to_owned();
        let negative = || ParquetError::General(format!("column `{name}`: a chunk lies outside the file"));
        let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
        let at = u64::try_from(start).map_err(|_| negative())?;
        let length = u64::try_from(chunk.compressed_size()).map_err(|_| negative())?;
        let end = at.checked_add(length).filter(|end| *end <= file.length().unwrap_or(0)).ok_or_else(negative)?;
        Ok(Self {
            column: name,
            codec: chunk.compression(),
            kind: column.physical_type(),
            nullable: column.max_def_level() > 0,
            next: None,
            file,
            at,
            end,
        })
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> ParquetError {
        ParquetError::General(format!("column `{}`: {problem}", self.column))
    }

    /// The header of the next page, if there is one, and its length.
    fn peek(&mut self) -> Result<Option<(Header, usize)>> {
        while self.next.is_none() && self.at < self.end {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let mut found = None;
            for length in [HEADER, MAX_HEADER] {
                let mut bytes = vec![0; length.min(left)];
                self.file.read_exact_at(&mut bytes, self.at)?;
                found = Header::read(&bytes);
                if found.is_some() || length >= left {
                    break;
                }
            }
            let (header, length) = found.ok_or_else(|| self.wrong("a page header can't be read"))?;
            let size = |size: i64| usize::try_from(size).ok().filter(|size| *size <= MAX_PAGE);
            let (Some(packed), Some(_)) = (size(header.packed), size(header.unpacked)) else {
                return Err(
                    self.wrong(format_args!("a page has more than {MAX_PAGE} bytes; write it with smaller pages"))
                );
            };
            if packed > left - length {
                return Err(self.wrong("a page is longer than its column chunk"));
            }
            if header.kind == Header::INDEX {
                self.at += (length + packed) as u64;
                continue;
            }
            self.next = Some((header, length));
        }
        Ok(self.next)
    }

    fn unpack(&self, packed: Vec<u8>, header: &Header) -> Result<Bytes> {
        // both were checked against the cap
        let wanted = header.unpacked as usize;
        let plain = match header.kind {
            Header::DATA_V2 => {
                let levels = header.definition_bytes.checked_add(header.repetition_bytes);
                let levels = levels.filter(|_| header.definition_bytes >= 0 && header.repetition_bytes >= 0);
                let levels = levels.and_then(|levels| usize::try_from(levels).ok());
                levels
                    .filter(|levels| *levels <= wanted.min(packed.len()))
                    .ok_or_else(|| self.wrong("levels are longer than their page"))?
            }
            _ => 0,
        };
        if self.codec == Compression::UNCOMPRESSED || header.is_compressed == 0 {
            return if packed.len() == wanted {
                Ok(packed.into())
            } else {
                Err(self.wrong("a page is not as long as it says"))
            };
        }
        let (levels, body) = packed.split_at(plain);
        let unpacked = match self.codec {
            _ if wanted == plain && body.is_empty() => Ok(Vec::new()),
            Compression::SNAPPY => snappy(body, wanted - plain),
            Compression::ZSTD(_) => zstd::bulk::decompress(body, wanted - plain),
            Compression::GZIP(_) => {
                let mut out = Vec::with_capacity(wanted - plain);
                let most = (wanted - plain) as u64 + 1;
                flate2::read::MultiGzDecoder::new(body).take(most).read_to_end(&mut out).map(|_| out)
            }
            other => {
                return Err(self.wrong(format_args!("compression {other} is not handled; use snappy, zstd or gzip")));
            }
        };
        let unpacked = unpacked.map_err(|_| self.wrong("a page can't be unpacked to the length that it says"))?;
        if unpacked.len() != wanted - plain {
            return Err(self.wrong("a page is not as long as it says"));
        }
        Ok(if plain == 0 { unpacked.into() } else { [levels, &unpacked].concat().into() })
    }

    fn page(&self, header: &Header, buf: Bytes) -> Result<Page> {
        let count = |count: i64| u32::try_from(count).map_err(|_| self.wrong("a page counts what can't be"));
        let encoding = match header.encoding {
            0 => Encoding::PLAIN,
            2 => Encoding::PLAIN_DICTIONARY,
            3 => Encoding::RLE,
            5 => Encoding::DELTA_BINARY_PACKED,
            6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            // a few bytes of it may stand for any number of long texts
            7 if self.kind != Type::BYTE_ARRAY => Encoding::DELTA_BYTE_ARRAY,
            8 => Encoding::RLE_DICTIONARY,
            9 => Encoding::BYTE_STREAM_SPLIT,
            7 => return Err(self.wrong("DELTA_BYTE_ARRAY is not handled; write it plain or with a dictionary")),
            _ => return Err(self.wrong("a page's encoding is not handled; write it plain or with a dictionary")),
        };
        let num_values = count(header.values)?;
        Ok(match header.kind {
            Header::DICTIONARY => Page::DictionaryPage { buf, num_values, encoding, is_sorted: header.sorted == 1 },
            Header::DATA => {
                if self.nullable && header.definition_encoding != 3 {
                    return Err(self.wrong("the definition levels' encoding is not handled"));
                }
                Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    def_level_encoding: Encoding::RLE,
                    rep_level_encoding: Encoding::RLE,
                    statistics: None,
                }
            }
            Header::DATA_V2 => Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls: count(header.nulls)?,
                num_rows: count(header.rows)?,
                def_levels_byte_len: count(header.definition_bytes)?,
                rep_levels_byte_len: count(header.repetition_bytes)?,
                is_compressed: false,
                statistics: None,
            },
            _ => return Err(self.wrong("a page is of an unknown type")),
        })
    }
}

fn snappy(packed: &[u8], wanted: usize) -> io::Result<Vec<u8>> {
    if snap::raw::decompress_len(packed)? != wanted {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(snap::raw::Decoder::new().decompress_vec(packed)?)
}

impl Iterator for Pages {
    type Item = Result<Page>;
    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some((header, length)) = self.peek()? else { return Ok(None) };
        let mut packed = vec![0; header.packed as usize];
        self.file.read_exact_at(&mut packed, self.at + length as u64)?;
        self.skip_next_page()?;
        let buf = self.unpack(packed, &header)?;
        self.page(&header, buf).map(Some)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let Some((header, _)) = self.peek()? else { return Ok(None) };
        let values = usize::try_from(header.values).ok();
        Ok(Some(PageMetadata { num_rows: values, num_levels: values, is_dict: header.kind == Header::DICTIONARY }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some((header, length)) = self.peek()? {
            self.at += length as u64 + header.packed as u64;
            self.next = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use parquet::basic::{GzipLevel, ZstdLevel};

    use super::*;

    fn pages(codec: Compression) -> Pages {
        let file: Arc<dyn ReadAt> = Arc::new(Vec::new());
        Pages { file, column: "c".into(), codec, kind: Type::INT64, nullable: true, at: 0, end: 0, next: None }
    }

    #[test]
    fn a_page_unpacks_to_as_much_as_it_says_or_not_at_all() {
        let plain = vec![7; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for (codec, packed) in [
            (Compression::SNAPPY, snap::raw::Encoder::new().compress_vec(&plain).unwrap()),
            (Compression::ZSTD(ZstdLevel::default()), zstd::encode_all(&*plain, 1).unwrap()),
            // two frames, each of which would do by itself
            (Compression::ZSTD(ZstdLevel::default()), {
                let half = zstd::encode_all(&plain[..1 << 19], 1).unwrap();
                [&*half, &*half].concat()
            }),
            (Compression::GZIP(GzipLevel::default()), gzip.finish().unwrap()),
            (Compression::UNCOMPRESSED, plain.clone()),
        ] {
            for said in [0, 10, (1 << 19), (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 60 << 20] {
                let header =
                    Header { unpacked: said, packed: packed.len() as i64, is_compressed: 1, ..Header::default() };
                match pages(codec).unpack(packed.clone(), &header) {
                    Ok(unpacked) => assert_eq!((said, &*unpacked), (1 << 20, &*plain), "{codec}"),
                    Err(error) => {
                        assert!(said != 1 << 20, "{codec}: {error}");
                        assert!(error.to_string().contains("column `c`: a page"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn levels_of_the_second_version_are_no_longer_than_their_page() {
        let packed = [&b"lev"[..], &snap::raw::Encoder::new().compress_vec(b"values").unwrap()].concat();
        let header = |definition_bytes, repetition_bytes| Header {
            kind: Header::DATA_V2,
            unpacked: 9,
            packed: packed.len() as i64,
            is_compressed: 1,
            definition_bytes,
            repetition_bytes,
            ..Header::default()
        };
        let unpack = |header| pages(Compression::SNAPPY).unpack(packed.clone(), &header);
        assert_eq!(&*unpack(header(3, 0)).unwrap(), b"levvalues");
        for (definition, repetition) in [(10, 0), (-1, 4), (i64::MAX, 1), (4, 0), (0, 0)] {
            assert!(unpack(header(definition, repetition)).is_err(), "{definition}, {repetition}");
        }
    }
}
