//! What a character is without its disguise. Tables of the characters that disguise English and Chinese words in practice, not
//! the whole of Unicode's confusables: those map too much of other scripts onto Latin.

/// The bare form of ASCII: a letter, a space for what separates words, 0 for what is left out.
pub(super) const ASCII: [u8; 128] = ascii();

const fn ascii() -> [u8; 128] {
    let mut table = [b' '; 128];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = match c {
            b'A'..=b'Z' => c.to_ascii_lowercase(),
            b'a'..=b'z' => c,
            b'0' => b'o',
            b'1' => b'i',
            b'3' => b'e',
            b'4' | b'@' => b'a',
            b'5' | b'$' => b's',
            b'7' => b't',
            b'8' => b'b',
            b'9' => b'g',
            b'2' | b'6' => c,
            b'\'' | b'`' => 0,
            _ => b' ',
        };
        if table[byte] == b'l' {
            table[byte] = b'i';
        }
        byte += 1;
    }
    table
}

/// Whether a reader does not see this character, so that it may stand inside a word unnoticed.
pub(crate) fn hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e001f}' | '\u{e007f}'..='\u{e0fff}'
        // Accents that stand on the letter before.
        | '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}')
}

/// The same character in its plain width and style. Tag characters, which nobody sees but models read, become what they spell.
pub(crate) fn plain(c: char) -> char {
    let code = c as u32;
    let ascii = match code {
        0xff01..=0xff5e => code - 0xff01 + 0x21,
        0xe0020..=0xe007e => code - 0xe0000,
        0x3000 | 0xa0 | 0x2000..=0x200a | 0x202f | 0x205f => 0x20,
        0x2010..=0x2015 | 0x2212 => 0x2d,
        0x1d400..=0x1d6a3 => letter((code - 0x1d400) % 52),
        0x1d7ce..=0x1d7ff => 0x30 + (code - 0x1d7ce) % 10,
        0x24b6..=0x24cf => 0x41 + code - 0x24b6,
        0x24d0..=0x24e9 => 0x61 + code - 0x24d0,
        0x1f130..=0x1f149 => 0x41 + code - 0x1f130,
        0x1f150..=0x1f169 => 0x41 + code - 0x1f150,
        0x1f170..=0x1f189 => 0x41 + code - 0x1f170,
        0x249c..=0x24b5 => 0x61 + code - 0x249c,
        0x2460..=0x2468 => 0x31 + code - 0x2460,
        0x2080..=0x2089 => 0x30 + code - 0x2080,
        0x660..=0x669 => 0x30 + code - 0x660,
        0x6f0..=0x6f9 => 0x30 + code - 0x6f0,
        0x966..=0x96f => 0x30 + code - 0x966,
        _ => return styled(c),
    };
    char::from_u32(ascii).unwrap_or(c)
}

/// The letter of a mathematical alphabet: capitals, then small ones.
fn letter(index: u32) -> u32 {
    if index < 26 { 0x41 + index } else { 0x61 + index - 26 }
}

/// Styled letters that stand outside the alphabets' ranges.
fn styled(c: char) -> char {
    match c {
        'ℂ' => 'C',
        'ℊ' => 'g',
        'ℋ' | 'ℌ' | 'ℍ' => 'H',
        'ℎ' => 'h',
        'ℐ' | 'ℑ' => 'I',
        'ℒ' => 'L',
        'ℓ' => 'l',
        'ℕ' => 'N',
        'ℙ' => 'P',
        'ℚ' => 'Q',
        'ℛ' | 'ℜ' | 'ℝ' => 'R',
        'ℤ' | 'ℨ' => 'Z',
        'ℬ' => 'B',
        'ℭ' => 'C',
        'ℯ' => 'e',
        'ℰ' => 'E',
        'ℱ' => 'F',
        'ℳ' => 'M',
        'ℴ' => 'o',
        '⁰' => '0',
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁴'..='⁹' => char::from(b'4' + (c as u32 - '⁴' as u32) as u8),
        '∕' | '⁄' => '/',
        '﹫' => '@',
        '．' | '․' | '。' => c,
        _ => c,
    }
}

/// Whether this is one of the common Chinese characters.
pub(super) fn is_han(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// The bare form of a character that [`plain`] gave; `None` if it separates words.
pub(crate) fn bare(c: char) -> Option<char> {
    if c.is_ascii() {
        let byte = ASCII[c as usize];
        return (byte != b' ').then_some(char::from(byte));
    }
    if let Some(latin) = latin(c) {
        return Some(char::from(ASCII[usize::from(latin)]));
    }
    if c == '’' || c == '‘' {
        return Some('\0');
    }
    c.is_alphanumeric().then(|| c.to_lowercase().next().unwrap_or(c))
}

/// The Latin letter that this one carries an accent on, or looks like.
fn latin(c: char) -> Option<u8> {
    Some(match c {
        'À'..='Å' | 'à'..='å' | 'Ā'..='ą' | 'А' | 'а' | 'Α' | 'α' | 'ɑ' | 'Ạ'..='ặ' | 'ᴀ' => b'a',
        'В' | 'Β' | 'ß' | 'β' | 'ʙ' | 'Ь' | 'ь' | 'Ƀ' | 'ƀ' => b'b',
        'Ç' | 'ç' | 'Ć'..='č' | 'С' | 'с' | 'ϲ' | 'ᴄ' | '¢' => b'c',
        'Ď'..='đ' | 'ԁ' | 'ɗ' | 'ᴅ' | 'ð' => b'd',
        'È'..='Ë' | 'è'..='ë' | 'Ē'..='ě' | 'Е' | 'е' | 'Ё' | 'ё' | 'Ε' | 'ε' | 'є' | 'Є' | 'Ẹ'..='ệ' | 'ᴇ' | '€' => {
            b'e'
        }
        'ƒ' | 'ꜰ' | 'Ϝ' => b'f',
        'Ĝ'..='ģ' | 'ɡ' | 'ɢ' | 'ǧ' => b'g',
        'Ĥ'..='ħ' | 'Н' | 'Η' | 'һ' | 'ʜ' => b'h',
        'Ì'..='Ï' | 'ì'..='ï' | 'Ĩ'..='ı' | 'І' | 'і' | 'Ї' | 'ї' | 'Ι' | 'ι' | 'ɪ' | 'Ỉ'..='ị' | 'Ӏ' | 'ӏ' | '¡' => {
            b'i'
        }
        'Ĵ' | 'ĵ' | 'Ј' | 'ј' | 'ϳ' | 'ᴊ' => b'j',
        'Ķ'..='ĸ' | 'К' | 'к' | 'Κ' | 'κ' | 'ᴋ' => b'k',
        'Ĺ'..='ł' | 'ʟ' | 'ⅼ' => b'l',
        'М' | 'м' | 'Μ' | 'ᴍ' | 'ⅿ' => b'm',
        'Ñ' | 'ñ' | 'Ń'..='ŋ' | 'Ν' | 'ո' | 'ɴ' | 'η' | 'и' | 'п' => b'n',
        'Ò'..='Ö' | 'ò'..='ö' | 'Ø' | 'ø' | 'Ō'..='ő' | 'О' | 'о' | 'Ο' | 'ο' | 'σ' | 'օ' | 'Ọ'..='ợ' | 'ᴏ' => {
            b'o'
        }
        'Р' | 'р' | 'Ρ' | 'ρ' | 'ᴘ' | 'þ' => b'p',
        'ԛ' => b'q',
        'Ŕ'..='ř' | 'г' | 'ʀ' => b'r',
        'Ś'..='š' | 'Ѕ' | 'ѕ' | 'ꜱ' | 'ș' => b's',
        'Ţ'..='ŧ' | 'Т' | 'т' | 'Τ' | 'τ' | 'ᴛ' | 'ț' => b't',
        'Ù'..='Ü' | 'ù'..='ü' | 'Ũ'..='ų' | 'υ' | 'ս' | 'Ụ'..='ự' | 'ᴜ' => b'u',
        'ν' | 'ѵ' | 'ᴠ' => b'v',
        'Ŵ' | 'ŵ' | 'ԝ' | 'ω' | 'ш' | 'ᴡ' => b'w',
        'Х' | 'х' | 'Χ' | 'χ' | '×' => b'x',
        'Ý' | 'ý' | 'ÿ' | 'Ŷ'..='Ÿ' | 'У' | 'у' | 'Υ' | 'γ' | 'ү' | 'Ỳ'..='ỹ' | 'ʏ' | '¥' => b'y',
        'Ź'..='ž' | 'Ζ' | 'ᴢ' => b'z',
        _ => return None,
    })
}

/// Traditional characters of the words that rules look for, in their simplified form.
pub(super) fn simplified(c: char) -> char {
    match c {
        '視' => '视',
        '無' => '无',
        '設' => '设',
        '規' => '规',
        '則' => '则',
        '請' => '请',
        '輸' => '输',
        '說' => '说',
        '詞' => '词',
        '資' => '资',
        '訊' => '讯',
        '開' => '开',
        '發' => '发',
        '現' => '现',
        '為' => '为',
        '會' => '会',
        '個' => '个',
        '們' => '们',
        '對' => '对',
        '話' => '话',
        '關' => '关',
        '閉' => '闭',
        '過' => '过',
        '濾' => '滤',
        '這' => '这',
        '從' => '从',
        '後' => '后',
        '隱' => '隐',
        '顯' => '显',
        '係' => '系',
        '統' => '统',
        '權' => '权',
        '員' => '员',
        '機' => '机',
        '學' => '学',
        '習' => '习',
        '絕' => '绝',
        '殺' => '杀',
        '賤' => '贱',
        '雜' => '杂',
        '種' => '种',
        '豬' => '猪',
        '腦' => '脑',
        '殘' => '残',
        '媽' => '妈',
        '罵' => '骂',
        '滾' => '滚',
        '廢' => '废',
        '惡' => '恶',
        '噁' => '恶',
        '歲' => '岁',
        '聽' => '听',
        '訴' => '诉',
        '洩' => '泄',
        '蓋' => '盖',
        '執' => '执',
        '條' => '条',
        '內' => '内',
        '實' => '实',
        '際' => '际',
        '調' => '调',
        '試' => '试',
        '擬' => '拟',
        '製' => '制',
        '繞' => '绕',
        '應' => '应',
        '當' => '当',
        '讓' => '让',
        '與' => '与',
        '僅' => '仅',
        '記' => '记',
        '憶' => '忆',
        '優' => '优',
        '級' => '级',
        '據' => '据',
        '擇' => '择',
        '斷' => '断',
        '兒' => '儿',
        '賣' => '卖',
        '給' => '给',
        '許' => '许',
        '該' => '该',
        '還' => '还',
        '進' => '进',
        '離' => '离',
        '嗎' => '吗',
        '麼' => '么',
        '樣' => '样',
        '頭' => '头',
        '複' => '复',
        '確' => '确',
        '檢' => '检',
        '護' => '护',
        '環' => '环',
        '罰' => '罚',
        '傷' => '伤',
        _ => c,
    }
}
