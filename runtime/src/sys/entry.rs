//! The first instructions of the program: before the C library starts, and
//! between it and [`crate::main`].
//!
//! A process that makes or enters a container executes its own binary once
//! more through a read-only mount (see [`crate::protect`]). Had the C library
//! and the Rust runtime been started before that, they would be started twice,
//! a tenth of all that a `run` takes: on x86-64 the C library asks the
//! processor some twenty times what it can do, which a hypervisor has to
//! answer each time. So it is done first of all, in instructions that need
//! neither, nor relocations, nor a stack of their own.

// Where the kernel enters the program (`build.rs` tells the linker). Whatever
// fails, or has been done already, ends in the C library's own `_start`, with
// the stack as the kernel left it; `protect::own_binary` then does, or
// refuses to go on without, what could not be done here.
//
// Registers kept: rbx descriptor, r12 stack, r13 the kernel's rdx, r14 argv.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".section .text.teu_entry, \"ax\", @progbits",
    ".globl teu_entry",
    ".type teu_entry, @function",
    "teu_entry:",
    "   mov r12, rsp",
    "   mov r13, rdx",
    "   lea r14, [rsp + 8]",
    // A command that needs no protection goes straight on. Eight bytes may be
    // read wherever an argument begins: the kernel ends the stack with a zero
    // word. A word of the user's that looks like a command costs one execve.
    "   lea rsi, [rsp + 16]",
    "2: mov rdi, [rsi]",
    "   test rdi, rdi",
    "   jz 8f",
    "   add rsi, 8",
    "   mov rax, [rdi]",
    "   cmp eax, {run}",
    "   je 3f",
    "   shl rax, 8",
    "   mov rcx, {create}",
    "   cmp rax, rcx",
    "   je 3f",
    "   shl rax, 16",
    "   mov rcx, {exec}",
    "   cmp rax, rcx",
    "   jne 2b",
    // statfs(2): a read-only binary is protected, perhaps by ourselves.
    "3: sub rsp, {frame}",
    "   mov eax, {statfs}",
    "   lea rdi, [rip + teu_own]",
    "   mov rsi, rsp",
    "   syscall",
    "   test rax, rax",
    "   jnz 8f",
    "   test byte ptr [rsp + {f_flags}], {read_only}",
    "   jnz 8f",
    // open_tree(2): a mount of the binary alone, attached nowhere.
    "   mov eax, {open_tree}",
    "   mov edi, {at_fdcwd}",
    "   lea rsi, [rip + teu_own]",
    "   mov edx, {clone}",
    "   syscall",
    "   test rax, rax",
    "   js 8f",
    "   mov rbx, rax",
    // mount_setattr(2): which nobody can write through.
    "   mov qword ptr [rsp], {attributes}",
    "   mov qword ptr [rsp + 8], 0",
    "   mov qword ptr [rsp + 16], 0",
    "   mov qword ptr [rsp + 24], 0",
    "   mov eax, {mount_setattr}",
    "   mov rdi, rbx",
    "   lea rsi, [rip + teu_empty]",
    "   mov edx, {empty_path}",
    "   mov r10, rsp",
    "   mov r8d, 32",
    "   syscall",
    "   test rax, rax",
    "   jnz 7f",
    // execveat(2): the same arguments and environment.
    "   mov eax, {execveat}",
    "   mov rdi, rbx",
    "   lea rsi, [rip + teu_empty]",
    "   mov rdx, r14",
    "   mov rcx, [r12]",
    "   lea r10, [r14 + rcx * 8 + 8]",
    "   mov r8d, {empty_path}",
    "   syscall",
    "7: mov eax, {close}",
    "   mov rdi, rbx",
    "   syscall",
    "8: mov rsp, r12",
    "   mov rdx, r13",
    "   jmp _start",
    ".size teu_entry, . - teu_entry",
    "teu_own: .asciz \"/proc/self/exe\"",
    "teu_empty: .byte 0",
    ".text",
    // The words with their ending zero, in the upper bytes of a register.
    run = const u32::from_le_bytes(*b"run\0"),
    create = const u64::from_le_bytes(*b"\0create\0"),
    exec = const u64::from_le_bytes(*b"\0\0\0exec\0"),
    frame = const size_of::<libc::statfs>().next_multiple_of(16),
    // libc keeps the name to itself; it is the word after `f_frsize`.
    f_flags = const std::mem::offset_of!(libc::statfs, f_frsize) + size_of::<u64>(),
    read_only = const libc::ST_RDONLY,
    at_fdcwd = const libc::AT_FDCWD,
    clone = const libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
    attributes = const libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
    empty_path = const libc::AT_EMPTY_PATH,
    statfs = const libc::SYS_statfs,
    open_tree = const libc::SYS_open_tree,
    mount_setattr = const libc::SYS_mount_setattr,
    execveat = const libc::SYS_execveat,
    close = const libc::SYS_close,
);

/// What the C library calls. In place of the Rust runtime's own, which would
/// also prepare for the overflow of stacks and for threads: twenty system
/// calls for a program that has one shallow stack.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(
    _argc: std::ffi::c_int,
    _argv: *const *const std::ffi::c_char,
) -> std::ffi::c_int {
    if super::fill_standard_streams().is_err() {
        // There is nowhere to say so, and what is opened next would take
        // the place of a stream that the container writes to.
        super::exit(1);
    }
    super::prepare_signals();
    std::process::exit(crate::main().into())
}
