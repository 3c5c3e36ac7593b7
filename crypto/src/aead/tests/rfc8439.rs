//! The AEAD vectors of RFC 8439: section 2.8.2 and appendix A.5.

pub(crate) struct Vector {
    pub(crate) section: &'static str,
    pub(crate) key: [u8; 32],
    pub(crate) nonce: [u8; 12],
    pub(crate) aad: &'static [u8],
    pub(crate) text_begins: &'static str,
    pub(crate) ciphertext: &'static str,
    pub(crate) tag: [u8; 16],
}

const fn key(high: u128, low: u128) -> [u8; 32] {
    let (high, low) = (high.to_be_bytes(), low.to_be_bytes());
    let mut key = [0; 32];
    key.split_at_mut(16).0.copy_from_slice(&high);
    key.split_at_mut(16).1.copy_from_slice(&low);
    key
}

pub(crate) const VECTORS: [Vector; 2] = [
    Vector {
        section: "2.8.2",
        key: key(0x8081_8283_8485_8687_8889_8a8b_8c8d_8e8f, 0x9091_9293_9495_9697_9899_9a9b_9c9d_9e9f),
        nonce: [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47],
        aad: &[0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
        text_begins: "Ladies and Gentlemen of the class of '99: ",
        ciphertext: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
            3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
            92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
            3ff4def08e4b7a9de576d26586cec64b6116",
        tag: 0x1ae1_0b59_4f09_e26a_7e90_2ecb_d060_0691_u128.to_be_bytes(),
    },
    Vector {
        section: "A.5",
        key: key(0x1c92_40a5_eb55_d38a_f333_8886_04f6_b5f0, 0x4739_17c1_402b_8009_9dca_5cbc_2070_75c0),
        nonce: [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        aad: &[0xf3, 0x33, 0x88, 0x86, 0, 0, 0, 0, 0, 0, 0x4e, 0x91],
        text_begins: "Internet-Drafts are draft documents valid for a maximum of six months",
        ciphertext: "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
            4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
            332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
            9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
            b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
            af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
            0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
            49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
            a6ad5cb4022b02709b",
        tag: 0xeead_9d67_890c_bb22_3923_36fe_a185_1f38_u128.to_be_bytes(),
    },
];
