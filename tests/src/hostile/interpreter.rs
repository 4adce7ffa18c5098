//! What the hostile guest executes: an interpreter of [`Record`]s in 64-bit code of its own, its page tables, and
//! where both lie in guest memory. It uses no interrupt and no stack beyond a few calls.
//!
//! A record is 32 bytes: operation, width, count, address, value, mask. An expectation that fails is noted in the
//! guest's [state](STATE) and written to the serial port; the program goes on.

use super::machine::TABLE_BYTES;

/// Where the code lies and the first vCPU starts: the lowest address at which a kernel is loaded.
pub const CODE: u64 = 0x10_0000;
/// Where the second vCPU starts.
pub const SECOND_ENTRY: u64 = CODE + 16;
/// The page tables.
pub const TABLES: u64 = 0x10_1000;
/// What each vCPU notes: address behind the first failed record, what it saw there, number of failures.
pub const STATE: [u64; 2] = [0x10_e000, 0x10_e100];
/// Programs of each vCPU.
pub const PROGRAM: [u64; 2] = [0x11_0000, 0x3e_0000];
/// End of the second program, and of what the guest needs to live.
pub const END: u64 = 0x40_0000;
/// Ports whose reading ends a program and, once the host has put the next in place, begins it.
pub const MAILBOX: [u16; 2] = [0x5f0, 0x5f8];

/// Bytes of a record.
pub const RECORD_BYTES: usize = 32;
/// Offset of the value in a record.
pub const VALUE_OFFSET: u64 = 16;

const STACKS: [u64; 2] = [0x10_f800, 0x11_0000];
/// Cycles that an awaited value may take: some 20 seconds.
const PATIENCE_CYCLES: u64 = 60_000_000_000;
const SERIAL_PORT: u16 = vmm::machine::layout::SERIAL_PORT;

const _: () = assert!(TABLES + TABLE_BYTES as u64 <= STATE[0]);

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Stores the value at the address, so many times.
    Write = 1,
    /// Loads from the address, so many times.
    Read = 2,
    /// What is at the address under the mask is the value.
    Expect = 3,
    /// Waits until it is.
    Await = 4,
    /// Stores so many 32-bit numbers from the address on: the value, and the mask more each time.
    Fill = 5,
    /// Goes back by as many bytes of records as the value says, so many times in all; the address counts.
    Loop = 6,
    /// Adds the value to what is at the address.
    Add = 7,
    /// Writes so many bytes from the address to the serial port.
    Print = 8,
    /// Writes the value, a byte, to the port that the address says.
    Port = 9,
    /// Ends the program.
    Next = 10,
    /// Halts for good.
    Halt = 11,
}

/// One step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it does.
    pub operation: Operation,
    /// Of the access: 1, 2, 4 or 8 bytes.
    pub width: u8,
    /// How often.
    pub count: u32,
    /// Guest-physical.
    pub address: u64,
    /// To be written or expected.
    pub value: u64,
    /// Of what is read.
    pub mask: u64,
}

impl Record {
    /// As the interpreter reads it.
    #[must_use]
    pub fn bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0] = self.operation as u8;
        bytes[1] = self.width.ilog2() as u8;
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.address.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.value.to_le_bytes());
        bytes[24..].copy_from_slice(&self.mask.to_le_bytes());
        bytes
    }
}

/// The interpreter's code, for [`CODE`].
#[must_use]
pub fn code() -> &'static [u8] {
    unsafe extern "C" {
        static ballast_hostile_start: u8;
        static ballast_hostile_end: u8;
    }
    let (start, end) = (&raw const ballast_hostile_start, &raw const ballast_hostile_end);
    // SAFETY: both are labels of the block below, in this order, and what is between them is constant.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

// rsi: next record; r8: mailbox; r9: program; r10: state. Per record: ecx width, ebp count, rdi address, rdx value,
// rbx mask.
std::arch::global_asm!(
    ".pushsection .rodata.ballast_hostile, \"a\"",
    ".globl ballast_hostile_start",
    ".globl ballast_hostile_end",
    "ballast_hostile_start:",
    "jmp 10f",
    ".balign 16",
    "mov r8d, {mailbox1}",
    "mov r9d, {program1}",
    "mov r10d, {state1}",
    "mov esp, {stack1}",
    "jmp 11f",
    "10:",
    "mov r8d, {mailbox0}",
    "mov r9d, {program0}",
    "mov r10d, {state0}",
    "mov esp, {stack0}",
    "11:",
    "mov eax, {tables}",
    "mov cr3, rax",
    "mov rsi, r9",
    "20:", // The next record.
    "movzx eax, byte ptr [rsi]",
    "movzx ecx, byte ptr [rsi + 1]",
    "mov ebp, dword ptr [rsi + 4]",
    "mov rdi, qword ptr [rsi + 8]",
    "mov rdx, qword ptr [rsi + 16]",
    "mov rbx, qword ptr [rsi + 24]",
    "add rsi, 32",
    "cmp al, 1",
    "je 30f",
    "cmp al, 2",
    "je 31f",
    "cmp al, 3",
    "je 32f",
    "cmp al, 4",
    "je 33f",
    "cmp al, 5",
    "je 35f",
    "cmp al, 6",
    "je 36f",
    "cmp al, 7",
    "je 37f",
    "cmp al, 8",
    "je 38f",
    "cmp al, 9",
    "je 39f",
    "cmp al, 10",
    "je 40f",
    "cli",
    "21:",
    "hlt",
    "jmp 21b",
    "30:", // Write.
    "call 60f",
    "dec ebp",
    "jnz 30b",
    "jmp 20b",
    "31:", // Read.
    "call 50f",
    "dec ebp",
    "jnz 31b",
    "jmp 20b",
    "32:", // Expect.
    "call 50f",
    "and rax, rbx",
    "cmp rax, rdx",
    "je 20b",
    "jmp 70f",
    "33:", // Await.
    "mov r12, rdx",
    "rdtsc",
    "shl rdx, 32",
    "lea r13, [rdx + rax]",
    "mov rax, {patience}",
    "add r13, rax",
    "34:",
    "call 50f",
    "and rax, rbx",
    "cmp rax, r12",
    "je 20b",
    "mov r14, rax",
    "pause",
    "rdtsc",
    "shl rdx, 32",
    "or rdx, rax",
    "cmp rdx, r13",
    "jb 34b",
    "mov rax, r14",
    "jmp 70f",
    "35:", // Fill: where all numbers are the same, by one instruction, as some hosts emulate each.
    "test ebx, ebx",
    "jz 42f",
    "43:",
    "mov dword ptr [rdi], edx",
    "add edx, ebx",
    "add rdi, 4",
    "dec ebp",
    "jnz 43b",
    "jmp 20b",
    "42:",
    "mov eax, edx",
    "mov ecx, ebp",
    "rep stosd",
    "jmp 20b",
    "36:", // Loop.
    "inc rdi",
    "mov qword ptr [rsi - 24], rdi",
    "cmp edi, ebp",
    "jae 41f",
    "sub rsi, rdx",
    "jmp 20b",
    "41:",
    "mov qword ptr [rsi - 24], 0",
    "jmp 20b",
    "37:", // Add.
    "call 50f",
    "add rdx, rax",
    "call 60f",
    "jmp 20b",
    "38:", // Print.
    "mov al, byte ptr [rdi]",
    "call 65f",
    "inc rdi",
    "dec ebp",
    "jnz 38b",
    "jmp 20b",
    "39:", // Port.
    "mov eax, edx",
    "mov edx, edi",
    "out dx, al",
    "jmp 20b",
    "40:", // Next.
    "mov edx, r8d",
    "in eax, dx",
    "mov rsi, r9",
    "jmp 20b",
    "50:", // Loads rax.
    "cmp cl, 1",
    "je 51f",
    "jb 52f",
    "cmp cl, 3",
    "je 53f",
    "mov eax, dword ptr [rdi]",
    "ret",
    "51:",
    "movzx eax, word ptr [rdi]",
    "ret",
    "52:",
    "movzx eax, byte ptr [rdi]",
    "ret",
    "53:",
    "mov rax, qword ptr [rdi]",
    "ret",
    "60:", // Stores rdx.
    "cmp cl, 1",
    "je 61f",
    "jb 62f",
    "cmp cl, 3",
    "je 63f",
    "mov dword ptr [rdi], edx",
    "ret",
    "61:",
    "mov word ptr [rdi], dx",
    "ret",
    "62:",
    "mov byte ptr [rdi], dl",
    "ret",
    "63:",
    "mov qword ptr [rdi], rdx",
    "ret",
    "65:", // Writes al to the serial port.
    "mov dx, {serial}",
    "out dx, al",
    "ret",
    "70:", // An expectation failed: rax was seen.
    "cmp qword ptr [r10], 0",
    "jne 71f",
    "mov qword ptr [r10], rsi",
    "mov qword ptr [r10 + 8], rax",
    "71:",
    "inc qword ptr [r10 + 16]",
    "mov r12, rax",
    "mov al, '!'",
    "call 65b",
    "mov rbx, rsi",
    "call 75f",
    "mov rbx, r12",
    "call 75f",
    "mov al, 10",
    "call 65b",
    "jmp 20b",
    "75:", // Writes rbx in hexadecimal, behind a space.
    "mov al, ' '",
    "call 65b",
    "mov ecx, 16",
    "76:",
    "rol rbx, 4",
    "mov al, bl",
    "and al, 15",
    "add al, '0'",
    "cmp al, '9'",
    "jbe 77f",
    "add al, 39",
    "77:",
    "call 65b",
    "dec ecx",
    "jnz 76b",
    "ret",
    "ballast_hostile_end:",
    ".popsection",
    mailbox0 = const MAILBOX[0],
    mailbox1 = const MAILBOX[1],
    program0 = const PROGRAM[0],
    program1 = const PROGRAM[1],
    state0 = const STATE[0],
    state1 = const STATE[1],
    stack0 = const STACKS[0],
    stack1 = const STACKS[1],
    tables = const TABLES,
    patience = const PATIENCE_CYCLES,
    serial = const SERIAL_PORT,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits_before_the_tables() {
        assert!(code().len() > 64 && code().len() as u64 <= TABLES - CODE, "{}", code().len());
    }
}
