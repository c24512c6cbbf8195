/*
 * layouts: gives a program's anonymous memory a chosen layout of 4 KiB and 2 MiB pages, block by block, from its first touch on.
 *
 *   LD_PRELOAD=layouts.so LAYOUT_SHARE=0.5 LAYOUT_SEED=1 program        transparent_hugepage/enabled must be madvise
 *
 *   brk, mmap of 2 MiB and more ──seccomp: SIGSYS──▶ handler: the call itself, then MADV_HUGEPAGE for each aligned block that the seed draws
 *
 * The heap is a reservation of our own, so that a block of it is whole when it is first touched; what the draw leaves out stays small.
 * One process, dynamically linked; calls that glibc makes inside itself are caught too, which preloading mmap alone would not do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BLOCK (2ul << 20)
#define HEAP (16ul << 30)

static double share;
static uint64_t seed;
static uintptr_t heap, heap_end, heap_at;

/* A page of its own, so that the filter can tell our calls by where they are made. */
__attribute__((noinline, aligned(4096), section(".text.ours"))) static long ours(long n, long a, long b, long c, long d, long e, long f)
{
    long out;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(out) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return out;
}

static int drawn(uintptr_t block)
{
    uint64_t x = (block + 1) * 0x9E3779B97F4A7C15ull ^ seed * 0xD1B54A32D192ED03ull;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9ull;
    x ^= x >> 32;
    return (double)(x >> 11) / (double)(1ull << 53) < share;
}

static void lay_out(uintptr_t start, size_t length)
{
    uintptr_t first = (start + BLOCK - 1) / BLOCK, end = (start + length) / BLOCK;
    for (uintptr_t b = first; b < end;) {
        uintptr_t to = b;
        while (to < end && drawn(to))
            to++;
        if (to > b)
            ours(SYS_madvise, (long)(b * BLOCK), (long)((to - b) * BLOCK), MADV_HUGEPAGE, 0, 0, 0);
        b = to + 1;
    }
}

static void trapped(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (r[REG_RAX] == SYS_brk || info->si_syscall == SYS_brk) {
        uintptr_t wanted = (uintptr_t)r[REG_RDI];
        if (wanted >= heap && wanted <= heap_end) {
            uintptr_t kept = (wanted + 4095) & ~4095ul;
            if (kept < heap_at) /* what a program gives back comes again as zeros */
                ours(SYS_madvise, (long)kept, (long)(((heap_at + 4095) & ~4095ul) - kept), MADV_DONTNEED, 0, 0, 0);
            heap_at = wanted;
        }
        r[REG_RAX] = (greg_t)heap_at;
        return;
    }
    long got = ours(SYS_mmap, r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]);
    if (got > 0 || got < -4095)
        lay_out((uintptr_t)got, (size_t)r[REG_RSI]);
    r[REG_RAX] = got;
}

/* Threads that block every signal would die of ours. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    sigset_t without;
    if (set) {
        without = *set;
        if (how != SIG_UNBLOCK)
            sigdelset(&without, SIGSYS);
    }
    return (int)-ours(SYS_rt_sigprocmask, how, (long)(set ? &without : NULL), (long)old, 8, 0, 0);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    int number = pthread_sigmask(how, set, old);
    if (number)
        errno = number;
    return number ? -1 : 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("LAYOUT_SHARE"), *drawn_by = getenv("LAYOUT_SEED");
    if (!text)
        return;
    share = atof(text);
    seed = drawn_by ? strtoull(drawn_by, NULL, 0) : 1;
    uintptr_t room = (uintptr_t)mmap(NULL, HEAP + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == (uintptr_t)MAP_FAILED)
        _exit(125);
    heap = heap_at = (room + BLOCK - 1) / BLOCK * BLOCK;
    heap_end = heap + HEAP;
    lay_out(heap, HEAP);
    struct sigaction action = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER };
    sigaction(SIGSYS, &action, NULL);
    uint64_t here = (uint64_t)(uintptr_t)ours;
#define DATA(f) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, f))
#define HIGH(f) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, f) + 4)
    struct sock_filter code[] = {
        HIGH(instruction_pointer),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(here >> 32), 0, 3),
        DATA(instruction_pointer),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfffff000u),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)here & 0xfffff000u, 9, 0), /* ours */
        DATA(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_brk, 8, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 6),
        DATA(args[3]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_ANONYMOUS, 0, 4),
        HIGH(args[1]),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
        DATA(args[1]),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, BLOCK, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = { sizeof(code) / sizeof(*code), code };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(125);
}
