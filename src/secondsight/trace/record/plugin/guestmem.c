/*
 * guestmem: a QEMU TCG plugin that streams the memory accesses of a guest, or of a program, to whoever records them.
 *
 *   QEMU ── each block of translated code ──▶ executed(): the clock, the fetches
 *        ── each load and store ───────────▶ accessed(): guest-physical page, read or write
 *                                                 │ quantum > 0: one row per quantum, page and kind
 *                                                 ▼ quantum = 0: one row per access and page
 *                                              rows ── write(2), blocking ──▶ fd
 *
 * The clock is the number of instructions of all vCPUs, one ns each, or (wall=1) the time that passes on the machine that records, while
 * the guest is halted too. Rows of a quantum stand in the order of first touch. Writing blocks when the reader is slow, so nothing is dropped while it lives; what cannot be written is
 * counted. The last row (kind 0xff) carries the totals, against which the reader checks its own.
 *
 * A system emulator gets a pipe: fd=N ram=BYTES high=0|1 virtual=0|1. A user-mode emulator gets a socket: socket=PATH self=PATH [exec=1].
 * Each process connects by itself, for a program may close what it did not open: before each send the descriptor is held against the
 * socket that was opened. Every message begins with a row that says who sends (kind 0xfe). A fork's child begins with what its parent's
 * clock said; an exec is made by us, as the emulator of the new program with this plugin, since the emulator itself would run it natively.
 *
 * ram: accesses to other memory (ROM, video) are counted,
 * not reported; high: RAM may also lie at 4 GiB and up (QEMU 8 and later give true guest-physical addresses; before,
 * RAM above the PCI hole appears right behind the RAM below it).
 *
 * Fetches: the API names the host address of an instruction, not its guest-physical one. The guest's RAM is one host
 * mapping of exactly `ram` bytes, which /proc/self/maps shows; where it is not, fetches are not reported and the
 * last row says so.
 */

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What is used of QEMU's plugin API (docs/devel/tcg-plugins.rst); distributions do not package its header. */
typedef uint64_t plugin_id;
typedef uint32_t meminfo;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    union { struct { int smp_vcpus, max_vcpus; } system; };
} plugin_info;
enum { CB_NO_REGS = 0 };
enum { MEM_R = 1, MEM_W = 2, MEM_RW = 3 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, meminfo, uint64_t, void *),
                                             int, int, void *);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned));
typedef void (*syscall_cb)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_cb);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, int64_t));
extern void qemu_plugin_register_flush_cb(plugin_id, void (*)(plugin_id));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
extern unsigned qemu_plugin_mem_size_shift(meminfo);
extern bool qemu_plugin_mem_is_store(meminfo);
extern struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(meminfo, uint64_t);
extern const char *qemu_plugin_path_to_binary(void) __attribute__((weak)); /* since 7.1 */
extern bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = PLUGIN_VERSION;

/* The row on the wire; little-endian, as every machine this runs on. */
struct row {
    uint64_t time;
    uint64_t address;
    uint32_t count;
    uint8_t kind; /* 4 read, 5 write, 6 fetch: the GUEST kinds of the trace format; 0xff: the totals */
    uint8_t pad[3];
};
enum { READ = 0, WRITE = 1, FETCH = 2, GUEST = 4, WALKS = 0xfc, STRAYED = 0xfd, HELLO = 0xfe, TOTALS = 0xff };
enum { STARTED, FORKED, EXECED, AGAIN };   /* why a HELLO is said: its count; its address is pid << 32 | the parent's */

#define PAGE 4096ull
#define NOWHERE UINT64_MAX
#define ROWS (1u << 18)
#define WORTH_A_WRITE 4096u
#define SLOTS (1u << 20)
#define HOT (1u << 12)
#define MOST_BYTES 64u /* that one access has */

static int out_fd = -1;
static const char *socket_path, *self_path;   /* user mode: where to connect, and this plugin's file */
static char *own_program;                     /* what the emulator runs; NULL: nobody says */
static ino_t socket_inode;
static pid_t owner;
static unsigned base = GUEST;                 /* of the kinds: a program's accesses are the CPU's own */
static bool user;
static uint64_t quantum, ram;
static bool high, virtual_addresses, several;
static volatile int lock_word;

static uint64_t now;                      /* instructions so far, or ns */
static bool wall;
static uint64_t quantum_end;
static uint64_t seen, unwritten, elsewhere, io; /* accesses: in rows, lost to a failed write, not RAM, device registers */
static bool fetches_lost, dead;

static struct row rows[ROWS];
static uint32_t n_rows, first_open;       /* rows[first_open..] belong to the open quantum */
static uint32_t slots[SLOTS];             /* row + 1 */
static uint32_t slot_of[ROWS];
/* The rows of the open quantum found last, by page and kind. A key of another epoch is another quantum's. */
static struct { uint64_t key; struct row *row; } hot[HOT];
static uint64_t epoch = 1, turn = 1;     /* turn: the same, never the same again */
#define TAKEN 0x800u
#define EPOCHS 0x10000u

static void acquire(void)
{
    if (several)
        while (__atomic_exchange_n(&lock_word, 1, __ATOMIC_ACQUIRE))
            for (unsigned looks = 0; __atomic_load_n(&lock_word, __ATOMIC_RELAXED); looks++)
                if (looks >= 100) /* who has it may have no processor */
                    sched_yield();
}

static void release(void)
{
    if (several)
        __atomic_store_n(&lock_word, 0, __ATOMIC_RELEASE);
}

static void send_rows(const struct row *from, uint32_t n);

static void put(const struct row *from, uint32_t n)
{
    if (user) {
        send_rows(from, n);
        return;
    }
    const char *at = (const char *)from;
    size_t left = n * sizeof(*from);
    while (left && !dead) {
        ssize_t done = write(out_fd, at, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            dead = true;
            break;
        }
        at += done;
        left -= (size_t)done;
    }
    if (left)
        for (const struct row *r = (const struct row *)at; r < from + n; r++)
            unwritten += r->count;
}

/* -- a program's way out: a socket that keeps messages apart ------------------------------------------------- */

#define MESSAGE 2000u /* rows: well below what a socket takes at once */

static bool still_ours(void)
{
    struct stat there;
    return out_fd >= 0 && !fstat(out_fd, &there) && S_ISSOCK(there.st_mode) && there.st_ino == socket_inode;
}

static bool send_message(const struct row *from, uint32_t n)
{
    while (send(out_fd, from, n * sizeof(*from), MSG_NOSIGNAL) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

static bool connect_anew(unsigned why)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    struct stat there;
    int low = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (low < 0)
        return false;
    out_fd = fcntl(low, F_DUPFD_CLOEXEC, 400); /* out of the program's way */
    if (out_fd < 0)
        out_fd = low;
    else
        close(low);
    strncpy(to.sun_path, socket_path, sizeof(to.sun_path) - 1);
    if (connect(out_fd, (struct sockaddr *)&to, sizeof(to)) || fstat(out_fd, &there))
        return false;
    socket_inode = there.st_ino;
    struct row hello = { .time = now, .address = (uint64_t)getpid() << 32 | (uint32_t)getppid(), .count = why, .kind = HELLO };
    return send_message(&hello, 1);
}

static void send_rows(const struct row *from, uint32_t n)
{
    while (n) {
        uint32_t some = n < MESSAGE ? n : MESSAGE;
        if (!dead && !still_ours() && !connect_anew(AGAIN))
            dead = true;
        if (!dead && !send_message(from, some))
            dead = true;
        if (dead)
            for (uint32_t i = 0; i < some; i++)
                unwritten += from[i].count;
        from += some;
        n -= some;
    }
}

static void next_epoch(void)
{
    turn++;
    if (++epoch == EPOCHS) {
        memset(hot, 0, sizeof(hot));
        epoch = 1;
    }
}

/* The open quantum ends: its slots are forgotten; rows go out when there are enough to be worth a write. */
static void end_quantum(bool write_now)
{
    for (uint32_t r = first_open; r < n_rows; r++)
        slots[slot_of[r]] = 0, seen += rows[r].count;
    next_epoch();
    first_open = n_rows;
    /* A program may be killed at any time: what is aggregated over milliseconds goes out at once. */
    if (write_now || n_rows >= WORTH_A_WRITE || (user && quantum >= 100000)) {
        put(rows, n_rows);
        n_rows = first_open = 0;
    }
}

static inline uint32_t hot_place(uint64_t address, unsigned kind)
{
    return (uint32_t)(address >> 12 ^ address >> 22 ^ (uint64_t)kind << 8) & (HOT - 1);
}

static __attribute__((noinline)) void first_touch(uint64_t address, unsigned kind, uint32_t times, uint64_t key, uint32_t h)
{
    uint64_t page = address & ~(PAGE - 1), hash = (page | kind) * 0x9E3779B97F4A7C15ull;
    uint32_t slot = (uint32_t)(hash >> 40) & (SLOTS - 1);
    while (slots[slot]) {
        struct row *r = &rows[slots[slot] - 1];
        if (r->address == page && r->kind == kind)
            break;
        slot = (slot + 1) & (SLOTS - 1);
    }
    if (!slots[slot]) {
        if (n_rows == ROWS) { /* a quantum of more pages than fit ends early */
            end_quantum(true);
            slot = (uint32_t)(hash >> 40) & (SLOTS - 1);
            key = (key & ((1ull << 48) - 1)) ^ epoch << 48;
        }
        rows[n_rows] = (struct row){ .time = now, .address = page, .kind = (uint8_t)kind };
        slot_of[n_rows] = slot;
        slots[slot] = ++n_rows;
    }
    hot[h].key = key;
    hot[h].row = &rows[slots[slot] - 1];
    hot[h].row->count += times;
}

static inline void touch(uint64_t address, unsigned kind, uint32_t times)
{
    kind += base;
    if (!quantum) {
        seen += times;
        rows[n_rows++] = (struct row){ .time = now, .address = address, .count = times, .kind = (uint8_t)kind };
        first_open = n_rows;
        if (n_rows == ROWS)
            end_quantum(true);
        return;
    }
    uint64_t key = ((address & ~(PAGE - 1)) | TAKEN | kind) ^ epoch << 48;
    uint32_t h = hot_place(address, kind);
    if (__builtin_expect(hot[h].key == key, 1))
        hot[h].row->count += times;
    else
        first_touch(address, kind, times, key, h);
}

/* -- the reference TLB (replay/tlb.py): which accesses would walk, were every page small, and were every block huge ------------
 *
 * Aggregated rows do not tell the order that a TLB hangs on, so walks are counted here: in windows of WARM + COUNT accesses of every
 * PERIOD, the first WARM of which bring the TLBs up to date. Each block's are told at the end of a window and of the program, for it may be
 * killed at any time: kind 0xfc, time the walks with small pages << 32 | those with huge ones, count the accesses counted; the first of
 * these rows has address ~0, time the accesses to data. What was told is not told again.
 */

#define WARM 16384u
#define COUNT 16384u
#define PERIOD (1u << 20)
#define L2_SETS 128u
#define L2_WAYS 12u
#define L1_WAYS 4u

struct tlb {
    uint32_t l1_sets;
    uint64_t l1[16][L1_WAYS], l2[L2_SETS][L2_WAYS];
};
static struct tlb small_pages = { .l1_sets = 16 }, huge_pages = { .l1_sets = 8 };
static struct walked { uint64_t block; uint32_t small, huge, counted; } *walked;
static uint32_t n_walked, walked_room;        /* a power of two, at most half full; block is its number + 1 */
static uint64_t data_accesses, data_told;
static uint32_t window_left = WARM;
static uint32_t quick_left;               /* of it: accesses that nothing but their row is to be done for */
static enum { SKIPPING, WARMING, COUNTING } window = WARMING;

/* Whether *tag* is among *ways* entries, latest used first; it is the first of them afterwards. */
static bool used(uint64_t *set, uint32_t ways, uint64_t tag)
{
    uint32_t i = 0;
    while (i < ways - 1 && set[i] != tag)
        i++;
    bool found = set[i] == tag;
    memmove(set + 1, set, i * sizeof(*set));
    set[0] = tag;
    return found;
}

/* Whether an access to page or block *number* walks. A hit in L1 is no use of L2. */
static bool walks(struct tlb *t, uint64_t number)
{
    return !used(t->l1[number & (t->l1_sets - 1)], L1_WAYS, number + 1) && !used(t->l2[number & (L2_SETS - 1)], L2_WAYS, number + 1);
}

static struct walked *walked_of(uint64_t block)
{
    if (2 * (n_walked + 1) > walked_room) {
        uint32_t room = walked_room ? 2 * walked_room : 1024;
        struct walked *old = walked, *fresh = calloc(room, sizeof(*fresh));
        if (!fresh)
            abort();
        for (uint32_t i = 0; i < walked_room; i++)
            if (old[i].block) {
                uint32_t at = (uint32_t)(old[i].block * 0x9E3779B97F4A7C15ull >> 40) & (room - 1);
                while (fresh[at].block)
                    at = (at + 1) & (room - 1);
                fresh[at] = old[i];
            }
        free(old);
        walked = fresh;
        walked_room = room;
    }
    uint32_t at = (uint32_t)((block + 1) * 0x9E3779B97F4A7C15ull >> 40) & (walked_room - 1);
    while (walked[at].block && walked[at].block != block + 1)
        at = (at + 1) & (walked_room - 1);
    if (!walked[at].block) {
        walked[at].block = block + 1;
        n_walked++;
    }
    return &walked[at];
}

static void say_walks(void)
{
    uint64_t data = data_accesses + WARM - window_left - quick_left;
    struct row some[256] = { { .time = data - data_told, .address = UINT64_MAX, .kind = WALKS } };
    uint32_t n = 1;
    data_told = data;
    for (uint32_t i = 0; i < walked_room; i++)
        if (walked[i].block) {
            some[n++] = (struct row){ .time = (uint64_t)walked[i].small << 32 | walked[i].huge, .address = (walked[i].block - 1) << 21,
                                      .count = walked[i].counted, .kind = WALKS };
            if (n == sizeof(some) / sizeof(*some)) {
                put(some, n);
                n = 0;
            }
        }
    put(some, n);
    if (walked)
        memset(walked, 0, walked_room * sizeof(*walked));
    n_walked = 0;
}

static void next_window(void)
{
    if (window == COUNTING && user)
        say_walks();
    window = window == COUNTING ? SKIPPING : window == SKIPPING ? WARMING : COUNTING;
    window_left = window == SKIPPING ? PERIOD - WARM - COUNT : window == WARMING ? WARM : COUNT;
    data_accesses += window_left;
    if (window == SKIPPING && !several && quantum) {
        quick_left = window_left;
        window_left = 0;
    }
}

static void reference(uint64_t vaddr)
{
    bool small = walks(&small_pages, vaddr >> 12), huge = walks(&huge_pages, vaddr >> 21);
    if (window == COUNTING) {
        struct walked *w = walked_of(vaddr >> 21);
        w->small += small;
        w->huge += huge;
        w->counted++;
    }
}

/* A new program, or a fork's child: its walks are its own. */
static void forget_walks(void)
{
    free(walked);
    walked = NULL;
    n_walked = walked_room = 0;
    data_accesses = data_told = 0;
    window = WARMING;
    window_left = WARM;
    quick_left = 0;
}

static bool is_ram(uint64_t address)
{
    return address < ram || (high && address - (4ull << 30) < ram);
}

static void access_page(meminfo info, uint64_t vaddr, unsigned kind)
{
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    if (!where) {
        elsewhere++;
        return;
    }
    if (qemu_plugin_hwaddr_is_io(where)) {
        io++;
        return;
    }
    uint64_t address = qemu_plugin_hwaddr_phys_addr(where);
    if (!is_ram(address))
        elsewhere++;
    else
        touch(virtual_addresses ? vaddr : address, kind, 1);
}

/* -- several threads: each notes what it does in a log of its own, and tells it under the lock when the log is full, or before a system call.
 *
 * So the lock is taken once for many accesses, and what is left of a log when a thread waits, forks or ends is told before. Threads take
 * turns by logs, which is where the order between them, and the time of what they did, is known to. Exact traces (no quantum) note nothing:
 * there every access takes the lock.
 */

#define LOGGED 4096u
#define MOST_THREADS 4096u
#define IS_BLOCK (1ull << 63) /* the rest is where the block executed lies; else the address accessed, which is below 2^47 */
#define IS_STORE (1ull << 62)
#define IS_REST (1ull << 61)  /* the second page of the access before */

struct block;
struct log {
    uint32_t n;    /* entries, by its thread alone */
    uint32_t done; /* of them told, under the lock */
    uint64_t entries[LOGGED];
};
static struct log *logs[MOST_THREADS]; /* of a program; a VM has none */

static void tell_block(struct block *b);

/* An access of a program, with its part of the TLB's window; under the lock. */
static void tell_access(uint64_t vaddr, unsigned kind)
{
    if (quick_left)
        quick_left--;
    else {
        if (!window_left)
            next_window();
        if (quick_left)
            quick_left--;
        else {
            window_left--;
            if (window != SKIPPING)
                reference(vaddr);
        }
    }
    touch(vaddr, kind, 1);
}

static void tell_log(struct log *log)
{
    uint32_t n = __atomic_load_n(&log->n, __ATOMIC_ACQUIRE);
    while (log->done < n) {
        uint64_t entry = log->entries[log->done++], address = entry & (IS_REST - 1);
        unsigned kind = entry & IS_STORE ? WRITE : READ;
        if (entry & IS_BLOCK)
            tell_block((struct block *)(uintptr_t)address);
        else if (entry & IS_REST)
            touch(address, kind, 1);
        else
            tell_access(address, kind);
    }
}

static void tell_own_log(struct log *log)
{
    acquire();
    tell_log(log);
    log->n = log->done = 0;
    release();
}

/* Under the lock, by whoever ends the process or its translated blocks. A thread that runs on goes on behind what is told. */
static void tell_every_log(void)
{
    for (uint32_t i = 0; i < MOST_THREADS; i++)
        if (logs[i])
            tell_log(logs[i]);
}

static inline struct log *log_of(unsigned vcpu)
{
    return several && quantum && vcpu < MOST_THREADS ? logs[vcpu] : NULL;
}

static inline void note(struct log *log, uint64_t entry)
{
    log->entries[log->n] = entry;
    __atomic_store_n(&log->n, log->n + 1, __ATOMIC_RELEASE);
    if (log->n == LOGGED)
        tell_own_log(log);
}

/* An access of a program that is more than a row found last: in a window of the TLB's, across two pages, of one of several threads. */
static __attribute__((noinline)) void accessed_fully(unsigned vcpu, meminfo info, uint64_t vaddr)
{
    bool store = qemu_plugin_mem_is_store(info);
    uint64_t last = vaddr + (1ull << qemu_plugin_mem_size_shift(info)) - 1;
    bool two_pages = (last ^ vaddr) >= PAGE && last > vaddr;
    struct log *log = log_of(vcpu);
    if (log) {
        note(log, vaddr | (store ? IS_STORE : 0));
        if (two_pages)
            note(log, (last & ~(PAGE - 1)) | IS_REST | (store ? IS_STORE : 0));
        return;
    }
    acquire();
    tell_access(vaddr, store ? WRITE : READ);
    if (two_pages)
        touch(last & ~(PAGE - 1), store ? WRITE : READ, 1);
    release();
}

static void accessed_by_program(unsigned vcpu, meminfo info, uint64_t vaddr, void *unused)
{
    (void)unused;
    if (__builtin_expect(!quick_left || (vaddr & (PAGE - 1)) > PAGE - MOST_BYTES, 0)) {
        accessed_fully(vcpu, info, vaddr);
        return;
    }
    quick_left--;
    touch(vaddr, qemu_plugin_mem_is_store(info) ? WRITE : READ, 1);
}

static void accessed(unsigned vcpu, meminfo info, uint64_t vaddr, void *unused)
{
    (void)vcpu, (void)unused;
    unsigned kind = qemu_plugin_mem_is_store(info) ? WRITE : READ;
    uint64_t last = vaddr + (1ull << qemu_plugin_mem_size_shift(info)) - 1;
    acquire();
    access_page(info, vaddr, kind);
    if ((last ^ vaddr) >= PAGE && last > vaddr)
        access_page(info, last & ~(PAGE - 1), kind);
    release();
}

/* A translated block: where its instructions lie (it spans two pages at most) and how many there are in each. */
struct block {
    uint64_t page[2];
    uint32_t n[2];
    struct row *row;   /* the fetches of its first page in quantum *turn* */
    uint64_t turn;
    bool whole;        /* it has no second page */
};
struct arena {
    struct arena *next;
    uint32_t used;
    struct block blocks[4096];
};
static struct arena *arenas;

/* The first run of a block in a quantum: its row is found, and kept for the next. */
static void fetched(struct block *b)
{
    if (b->page[0] == NOWHERE)
        return;
    touch(b->page[0], FETCH, b->n[0]);
    if (quantum) {
        uint32_t h = hot_place(b->page[0], FETCH + base);
        b->row = hot[h].row;
        b->turn = turn;
    }
}

/* A block executed; under the lock. */
static void tell_block(struct block *b)
{
    if (__builtin_expect(quantum && now >= quantum_end, 0)) {
        quantum_end = now - now % quantum + quantum;
        end_quantum(false);
    }
    now++; /* the block's accesses carry the time of its first instruction */
    if (b->turn == turn)
        b->row->count += b->n[0];
    else
        fetched(b);
    if (__builtin_expect(b->n[1] && b->page[1] != NOWHERE, 0))
        touch(b->page[1], FETCH, b->n[1]);
    now += b->n[0] + b->n[1] - 1;
}

static void executed(unsigned vcpu, void *data)
{
    struct block *b = data;
    if (__builtin_expect(b->turn == turn && now < quantum_end && b->whole && !several, 1)) {
        now += b->n[0];
        b->row->count += b->n[0];
        return;
    }
    struct log *log = log_of(vcpu);
    if (log) {
        note(log, (uint64_t)(uintptr_t)b | IS_BLOCK);
        return;
    }
    acquire();
    tell_block(b);
    release();
}

/* The same by the wall clock, which is read once in LOOK_EVERY blocks; a quantum ends early before a row's count could overflow. */
#define LOOK_EVERY 64u
#define MOST_IN_A_QUANTUM (1ull << 31)

static uint64_t monotonic(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000ull + (uint64_t)at.tv_nsec;
}

static void executed_by_wall(unsigned vcpu, void *data)
{
    static uint64_t started, instructions;
    static uint32_t blocks;
    (void)vcpu;
    struct block *b = data;
    acquire();
    if (blocks++ % LOOK_EVERY == 0) {
        uint64_t at = monotonic();
        if (!started)
            started = at;
        now = at - started;
    }
    if (quantum && (now >= quantum_end || instructions >= MOST_IN_A_QUANTUM)) {
        quantum_end = now - now % quantum + quantum;
        instructions = 0;
        end_quantum(false);
    }
    instructions += b->n[0] + b->n[1];
    if (b->turn == turn)
        b->row->count += b->n[0];
    else
        fetched(b);
    if (b->n[1] && b->page[1] != NOWHERE)
        touch(b->page[1], FETCH, b->n[1]);
    release();
}

static uint64_t ram_start, ram_end; /* the host mapping of the guest's RAM, once found */

static bool find_ram(uint64_t host)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned long start, end;
    bool found = false;
    while (maps && !found && fgets(line, sizeof(line), maps))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= host && host < end && end - start == ram) {
            ram_start = start;
            ram_end = end;
            found = true;
        }
    if (maps)
        fclose(maps);
    return found;
}

static uint64_t code_page(const struct qemu_plugin_insn *insn, uint64_t vaddr)
{
    if (virtual_addresses || user)
        return vaddr & ~(PAGE - 1);
    uint64_t host = (uint64_t)(uintptr_t)qemu_plugin_insn_haddr(insn);
    if (!host)
        return NOWHERE;
    if (!(host >= ram_start && host < ram_end) && (ram_end || !find_ram(host)))
        return NOWHERE; /* ROM, or RAM not found yet */
    return (host - ram_start) & ~(PAGE - 1);
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    acquire();
    if (user && !own_program && qemu_plugin_path_to_binary) {
        /* Before the program runs, and changes its directory. */
        char *named = (char *)qemu_plugin_path_to_binary();
        own_program = named ? realpath(named, NULL) : NULL;
        free(named);
    }
    if (!arenas || arenas->used == 4096) {
        struct arena *fresh = calloc(1, sizeof(*fresh));
        if (!fresh)
            abort();
        fresh->next = arenas;
        arenas = fresh;
    }
    struct block *b = &arenas->blocks[arenas->used++];
    size_t n = qemu_plugin_tb_n_insns(tb);
    uint64_t first = 0;
    b->page[0] = b->page[1] = NOWHERE;
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t vaddr = qemu_plugin_insn_vaddr(insn);
        int second = i && (vaddr ^ first) >= PAGE;
        if (!i)
            first = vaddr;
        if (!b->n[second]++)
            b->page[second] = code_page(insn, vaddr);
        qemu_plugin_register_vcpu_mem_cb(insn, user ? accessed_by_program : accessed, CB_NO_REGS, MEM_RW, NULL);
    }
    b->whole = !b->n[1];
    release();
    qemu_plugin_register_vcpu_tb_exec_cb(tb, wall ? executed_by_wall : executed, CB_NO_REGS, b);
}

/* All translated blocks are gone: nothing points into the arenas any more. */
static void flushed(plugin_id id)
{
    (void)id;
    acquire();
    tell_every_log();
    while (arenas) {
        struct arena *next = arenas->next;
        free(arenas);
        arenas = next;
    }
    release();
}

static void say_totals(void)
{
    tell_every_log();
    end_quantum(true);
    if (user)
        say_walks();
    fetches_lost = !ram_end && !virtual_addresses && !user;
    struct row totals[2] = {
        { .time = seen, .address = unwritten, .count = fetches_lost, .kind = TOTALS },
        { .time = elsewhere, .address = io, .kind = TOTALS },
    };
    put(totals, 2);
}

static void ended(plugin_id id, void *unused)
{
    (void)id, (void)unused;
    acquire();
    say_totals();
    if (!user || still_ours())
        close(out_fd);
    dead = true;
    release();
}

/* -- fork and exec of a program -------------------------------------------------------------------------------- */

static void now_several(plugin_id id, unsigned vcpu)
{
    (void)id;
    if (vcpu && !several) {
        window_left += quick_left;
        quick_left = 0;
    }
    if (vcpu < MOST_THREADS && !logs[vcpu])
        logs[vcpu] = calloc(1, sizeof(*logs[vcpu])); /* where there is none, each access takes the lock */
    if (vcpu)
        several = true; /* by the thread that makes the second one, between its own accesses */
}

/* In a fork's child: what is pending is the parent's to tell; the clock goes on. */
static void child_begins(void)
{
    for (uint32_t i = 0; i < MOST_THREADS; i++)
        if (logs[i])
            logs[i]->n = logs[i]->done = 0;
    for (uint32_t r = first_open; r < n_rows; r++)
        slots[slot_of[r]] = 0;
    next_epoch();
    n_rows = first_open = 0;
    seen = unwritten = 0;
    forget_walks();
    owner = getpid();
    if (still_ours())
        close(out_fd);
    dead = !connect_anew(FORKED);
}

static void after_syscall(plugin_id id, unsigned vcpu, int64_t number, int64_t answer)
{
    (void)id, (void)vcpu, (void)number, (void)answer;
    if (answer == 0 && user && getpid() != owner) {
        lock_word = 0;
        child_begins();
    }
}

/* Up to *size* bytes of a program's string, read as the kernel would: a bad pointer is an answer, no fault. */
static bool is_string(const char *at)
{
    static char buffer[4096];
    int fd[2];
    if (!at || pipe2(fd, O_CLOEXEC))
        return false;
    bool good = false;
    for (size_t done = 0; done < 1u << 20;) {
        size_t some = PAGE - ((uintptr_t)(at + done) & (PAGE - 1));
        ssize_t got = write(fd[1], at + done, some);
        if (got <= 0 || read(fd[0], buffer, (size_t)got) != got)
            break;
        if (memchr(buffer, 0, (size_t)got)) {
            good = true;
            break;
        }
        done += (size_t)got;
    }
    close(fd[0]);
    close(fd[1]);
    return good;
}

#define MOST_ARGUMENTS 65536

/* Counts a program's vector of strings; -1: not readable. */
static int length_of(char *const *vector)
{
    int n = 0;
    for (; n < MOST_ARGUMENTS; n++) {
        int fd[2];
        char *one = NULL;
        if (pipe2(fd, O_CLOEXEC))
            return -1;
        bool good = write(fd[1], &vector[n], sizeof(one)) == sizeof(one) && read(fd[0], &one, sizeof(one)) == sizeof(one);
        close(fd[0]);
        close(fd[1]);
        if (!good || (one && !is_string(one)))
            return -1;
        if (!one)
            return n;
    }
    return -1;
}

/* What the emulator can run: 1 an x86-64 program, 2 a script (its first line in *line*), 0 neither. */
static int runnable(const char *path, char *line, size_t size)
{
    int fd = access(path, X_OK) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    memset(line, 0, size);
    ssize_t n = read(fd, line, size - 1);
    close(fd);
    const Elf64_Ehdr *head = (const void *)line;
    if (n >= (ssize_t)sizeof(*head) && !memcmp(line, ELFMAG, SELFMAG))
        return head->e_ident[EI_CLASS] == ELFCLASS64 && head->e_machine == EM_X86_64;
    return n > 2 && line[0] == '#' && line[1] == '!' ? 2 : 0;
}

/* The program's own file by a name that is the emulator's for us: in /proc the process is the emulator. */
static bool is_own_program(const char *path)
{
    char by_number[32];
    snprintf(by_number, sizeof(by_number), "/proc/%d/exe", (int)getpid());
    return !strcmp(path, "/proc/self/exe") || !strcmp(path, "/proc/thread-self/exe") || !strcmp(path, by_number);
}

static void exec_with_us(const char *path, char *const *argv, char *const *envp)
{
    static char line[256], option[512], script[4096];
    static char *out[MOST_ARGUMENTS + 16];
    if (!is_string(path))
        return;
    if (own_program && is_own_program(path))
        path = own_program;
    int n = argv ? length_of(argv) : 0, at = 0;
    if (n < 0 || n > MOST_ARGUMENTS - 8 || (envp && length_of(envp) < 0))
        return;
    int what = runnable(path, line, sizeof(line));
    const char *program = path, *shown = n ? argv[0] : path, *extra = NULL;
    if (what == 2) {
        line[strcspn(line, "\n")] = 0;
        char *name = line + 2 + strspn(line + 2, " \t");
        char *end = name + strcspn(name, " \t");
        if (*end) {
            *end++ = 0;
            end += strspn(end, " \t");
            if (*end)
                extra = end;
        }
        snprintf(script, sizeof(script), "%s", name);
        static char second[256];
        what = runnable(script, second, sizeof(second));
        program = shown = script;
    }
    if (what != 1) {
        if (!access(path, X_OK)) { /* it will run, and not be seen */
            struct row strayed = { .time = now, .kind = STRAYED };
            end_quantum(true);
            put(&strayed, 1);
        }
        return;
    }
    snprintf(option, sizeof(option), "file=%s,socket=%s,self=%s,quantum=%llu,exec=1", self_path, socket_path, self_path,
             (unsigned long long)quantum);
    out[at++] = "qemu-x86_64";
    out[at++] = "-plugin";
    out[at++] = option;
    out[at++] = "-0";
    out[at++] = (char *)shown;
    out[at++] = (char *)program;
    if (program == script) {
        if (extra)
            out[at++] = (char *)extra;
        out[at++] = (char *)path;
    }
    for (int i = 1; i < n; i++)
        out[at++] = argv[i];
    out[at] = NULL;
    say_totals();
    static char *const nothing[] = { NULL };
    execve("/proc/self/exe", out, envp ? envp : nothing);
}

/* A program that waits has told what it did, whenever it is killed: pause and rt_sigsuspend wait for nothing but that. */
#define UNTOLD 10000000u /* ns without a send, after which any system call may be where it waits */

static bool long_untold(int64_t number)
{
    static uint64_t last;
    uint64_t at = monotonic();
    if (number != 34 && number != 130 && at - __atomic_load_n(&last, __ATOMIC_RELAXED) < UNTOLD)
        return false;
    __atomic_store_n(&last, at, __ATOMIC_RELAXED);
    return true;
}

static void before_syscall(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    struct log *log = log_of(vcpu);
    if (log && log->n)
        tell_own_log(log);
    /* kill, tkill, tgkill: perhaps itself; fork, vfork, clone and clone3 but for a thread: what a child begins with is told before it. */
    bool forks = number == 57 || number == 58 || number == 435 || (number == 56 && !(a1 & 0x10000));
    if (number == 62 || number == 200 || number == 234 || forks || long_untold(number)) {
        acquire();
        end_quantum(true);
        release();
    }
    if (number != 59 && number != 322) /* execve, execveat */
        return;
    acquire();
    if (number == 59)
        exec_with_us((const char *)a1, (char *const *)a2, (char *const *)a3);
    else {
        struct row strayed = { .time = now, .kind = STRAYED };
        end_quantum(true);
        put(&strayed, 1);
    }
    release();
}

static bool argument(const char *text, const char *name, uint64_t *value)
{
    size_t length = strlen(name);
    if (strncmp(text, name, length) || text[length] != '=')
        return false;
    *value = strtoull(text + length + 1, NULL, 0);
    return true;
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    uint64_t fd = 0, is_high = 0, is_virtual = 0, is_exec = 0, is_wall = 0;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "socket=", 7))
            socket_path = strdup(argv[i] + 7);
        else if (!strncmp(argv[i], "self=", 5))
            self_path = strdup(argv[i] + 5);
        else if (!argument(argv[i], "exec", &is_exec) && !argument(argv[i], "fd", &fd) && !argument(argv[i], "quantum", &quantum) && !argument(argv[i], "ram", &ram) &&
            !argument(argv[i], "high", &is_high) && !argument(argv[i], "virtual", &is_virtual) && !argument(argv[i], "wall", &is_wall)) {
            fprintf(stderr, "guestmem: unknown argument %s\n", argv[i]);
            return -1;
        }
    user = !info->system_emulation;
    if (user ? !socket_path || !self_path || strcmp(info->target_name, "x86_64") : !fd || !ram) {
        fprintf(stderr, "guestmem: a system emulator needs fd= and ram=, that of x86-64 programs socket= and self=\n");
        return -1;
    }
    if (user) {
        base = 0;
        owner = getpid();
        if (!connect_anew(is_exec ? EXECED : STARTED)) {
            fprintf(stderr, "guestmem: cannot connect to %s\n", socket_path);
            return -1;
        }
        qemu_plugin_register_vcpu_init_cb(id, now_several);
        qemu_plugin_register_vcpu_syscall_cb(id, before_syscall);
        qemu_plugin_register_vcpu_syscall_ret_cb(id, after_syscall);
    } else
        out_fd = (int)fd;
    high = is_high;
    virtual_addresses = is_virtual;
    wall = is_wall;
    several = !user && info->system.max_vcpus > 1;
    quantum_end = quantum;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_flush_cb(id, flushed);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
