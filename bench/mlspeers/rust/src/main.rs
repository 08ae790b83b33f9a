//! Does what it is asked on its standard input, by one library in Rust, and answers
//! what each operation took. ../rust.go asks.
//!
//! A request is an operation (1 byte), a member (4 bytes), the number of its arguments
//! (4 bytes), and each with its length (4 bytes) before it. An answer is whether it
//! failed (1 byte), nanoseconds (8 bytes), bytes allocated (8 bytes), and what was made
//! or, where it failed, why, with its length (4 bytes). Numbers are little-endian.

mod mls_rs_member;
mod openmls_member;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

type Bytes = Vec<u8>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Somebody with a signature key, in one group at most: the last that it made or joined.
/// Messages are encoded, and handshakes public.
trait Member {
    fn key_package(&mut self) -> Result<Bytes>;
    fn create(&mut self) -> Result<()>;
    fn join(&mut self, welcome: &[u8]) -> Result<()>;
    /// By one commit with a path, which is merged. Returns the Welcome.
    fn add(&mut self, key_packages: &[Bytes]) -> Result<Bytes>;
    /// Without proposals, and merged.
    fn commit(&mut self) -> Result<Bytes>;
    fn process_commit(&mut self, commit: &[u8]) -> Result<()>;
    fn encrypt(&mut self, text: &[u8]) -> Result<Bytes>;
    fn decrypt(&mut self, message: &[u8]) -> Result<Bytes>;
}

/// The system's allocator, with a count of the bytes that were asked for.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is done by System; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let more = size.saturating_sub(layout.size());
        ALLOCATED.fetch_add(more as u64, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let new = match std::env::args().nth(1).as_deref() {
        Some("mls-rs") => mls_rs_member::new,
        Some("openmls") => openmls_member::new::<openmls_rust_crypto::OpenMlsRustCrypto>,
        Some("openmls-libcrux") => openmls_member::new::<openmls_libcrux_crypto::Provider>,
        _ => return Err("which library? mls-rs, openmls, openmls-libcrux".into()),
    };
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let mut members: HashMap<u32, Box<dyn Member>> = HashMap::new();
    loop {
        let mut operation = [0];
        if input.read(&mut operation)? == 0 {
            return Ok(());
        }
        let member = read_number(&mut input)?;
        let mut arguments = Vec::new();
        for _ in 0..read_number(&mut input)? {
            let mut argument = vec![0; read_number(&mut input)? as usize];
            input.read_exact(&mut argument)?;
            arguments.push(argument);
        }
        if operation[0] == b'n' {
            let name = arguments.first().ok_or("no name")?;
            members.insert(member, new(name)?);
            answer(&mut output, 0, 0, &Ok(Bytes::new()))?;
            continue;
        }
        let member = members.get_mut(&member).ok_or("no such member")?;
        let allocated = ALLOCATED.load(Ordering::Relaxed);
        let start = Instant::now();
        let made = operate(member.as_mut(), operation[0], &arguments);
        let took = start.elapsed().as_nanos() as u64;
        let allocated = ALLOCATED.load(Ordering::Relaxed) - allocated;
        answer(&mut output, took, allocated, &made)?;
    }
}

fn operate(member: &mut dyn Member, operation: u8, arguments: &[Bytes]) -> Result<Bytes> {
    let argument = || arguments.first().ok_or("no argument");
    match operation {
        b'k' => member.key_package(),
        b'c' => member.create().map(|()| Bytes::new()),
        b'j' => member.join(argument()?).map(|()| Bytes::new()),
        b'a' => member.add(arguments),
        b'u' => member.commit(),
        b'p' => member.process_commit(argument()?).map(|()| Bytes::new()),
        b'e' => member.encrypt(argument()?),
        b'd' => member.decrypt(argument()?),
        _ => Err("no such operation".into()),
    }
}

fn read_number(input: &mut impl Read) -> io::Result<u32> {
    let mut number = [0; 4];
    input.read_exact(&mut number)?;
    Ok(u32::from_le_bytes(number))
}

fn answer(out: &mut impl Write, took: u64, allocated: u64, made: &Result<Bytes>) -> io::Result<()> {
    let (failed, bytes) = match made {
        Ok(made) => (0, made.clone()),
        Err(err) => (1, err.to_string().into_bytes()),
    };
    out.write_all(&[failed])?;
    out.write_all(&took.to_le_bytes())?;
    out.write_all(&allocated.to_le_bytes())?;
    out.write_all(&(bytes.len() as u32).to_le_bytes())?;
    out.write_all(&bytes)?;
    out.flush()
}
