//! Generated content says that it is generated: a line for people, a value for machines, and both inside a PNG's metadata.
//!
//! The value follows what readers already look for: in images the XMP property `Iptc4xmpExt:DigitalSourceType` with IPTC's term
//! `trainedAlgorithmicMedia`, in text a JSON object of the shape that GB 45438-2025 names `AIGC`. Nothing here is a
//! watermark: who removes the label removes it.

use serde::{Deserialize, Serialize};

use crate::policy::Labels;

/// IPTC's term for content that a trained model made.
const SOURCE: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
/// What people read.
const LINE: &str = "\n\n[AI-generated · 人工智能生成]";

/// Where generated content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Provenance {
    /// `1`: it is generated.
    label: String,
    /// Who runs the model.
    content_producer: String,
    /// The model.
    model: String,
    /// The request's id, by which the record is found.
    #[serde(rename = "ProduceID")]
    produce_id: String,
    /// IPTC's term.
    digital_source_type: String,
}

impl Provenance {
    /// Content that this producer's model made for this request.
    pub fn new(producer: impl Into<String>, model: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            label: "1".into(),
            content_producer: producer.into(),
            model: model.into(),
            produce_id: id.into(),
            digital_source_type: SOURCE.into(),
        }
    }
}

impl Labels {
    /// What is to be appended to a generated text that people read. Not to JSON, code or tool calls: it would break them.
    pub fn line(&self) -> Option<&'static str> {
        self.visible.then_some(LINE)
    }

    /// The image with its provenance in the metadata, if that is wanted and it is a PNG; else `None`.
    pub fn png(&self, image: &[u8], provenance: &Provenance) -> Option<Vec<u8>> {
        if self.metadata { labelled(image, &packet(provenance)) } else { None }
    }
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Signature and the header's chunk: length, type, 13 bytes, sum.
const HEAD: usize = 8 + 12 + 13;

/// The image with an uncompressed international text chunk behind its header (PNG, section 11.3.3.4).
fn labelled(image: &[u8], packet: &str) -> Option<Vec<u8>> {
    let header = image.strip_prefix(SIGNATURE)?.get(4..8)?;
    if header != b"IHDR" || image.len() < HEAD {
        return None;
    }
    let mut chunk = b"iTXtXML:com.adobe.xmp\0\0\0\0\0".to_vec();
    chunk.extend_from_slice(packet.as_bytes());
    let length = u32::try_from(chunk.len() - 4).ok()?;
    let (head, rest) = image.split_at(HEAD);
    Some([head, &length.to_be_bytes(), &chunk, &crc(&chunk).to_be_bytes(), rest].concat())
}

/// The smallest XMP packet that says where the image comes from.
fn packet(Provenance { content_producer, model, produce_id, digital_source_type, .. }: &Provenance) -> String {
    let (producer, model, id) = (escaped(content_producer), escaped(model), escaped(produce_id));
    format!(
        r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" Iptc4xmpExt:DigitalSourceType="{digital_source_type}" xmp:CreatorTool="{producer} {model}" dc:identifier="{id}"/></rdf:RDF></x:xmpmeta>"#
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// CRC-32 of PNG and zlib.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One grey pixel.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\
        \0\0\0\nIDATx\x9cc\x68\0\0\0\x82\0\x81\x77\xcd\x72\xb6\0\0\0\0IEND\xae\x42\x60\x82";

    /// Type and content of every chunk, whose sums must hold.
    fn chunks(mut png: &[u8]) -> Vec<(&[u8], &[u8])> {
        png = png.strip_prefix(SIGNATURE).unwrap();
        let mut found = Vec::new();
        while !png.is_empty() {
            let length = u32::from_be_bytes(png[..4].try_into().unwrap()) as usize;
            let body = &png[4..8 + length];
            assert_eq!(png[8 + length..12 + length], crc(body).to_be_bytes());
            found.push(body.split_at(4));
            png = &png[12 + length..];
        }
        found
    }

    #[test]
    fn a_png_carries_its_provenance() {
        let labels = Labels { visible: false, metadata: true };
        let image = labels.png(PNG, &Provenance::new("Ada & \"Co\"", "m", "req_1")).unwrap();
        let chunks = chunks(&image);
        assert_eq!(chunks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [b"IHDR", b"iTXt", b"IDAT", b"IEND"]);
        let text = std::str::from_utf8(chunks[1].1).unwrap();
        assert!(text.starts_with("XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta"), "{text}");
        assert!(text.contains(SOURCE) && text.contains("Ada &amp; &quot;Co&quot; m") && text.contains("req_1"));
    }

    #[test]
    fn only_what_is_asked_for_and_can_be() {
        let provenance = Provenance::new("p", "m", "r");
        assert_eq!(Labels::default().png(PNG, &provenance), None);
        assert_eq!(Labels { visible: true, metadata: true }.png(b"GIF89a", &provenance), None);
        assert_eq!(Labels { visible: true, metadata: true }.png(&PNG[..20], &provenance), None);
        assert_eq!(Labels::default().line(), None);
        let json = serde_json::to_value(&provenance).unwrap();
        assert_eq!((json["Label"].as_str(), json["ProduceID"].as_str()), (Some("1"), Some("r")));
    }
}
