/* SPDX-License-Identifier: MIT */
/*
 * ipc: what a message from one process to another costs, by each means.
 *
 *     parent               kernel              child
 *     message ---copy---> a buffer ---copy---> message    pipe, socketpair
 *     message ---copy---------------> a slot that both map, shared memory
 * On two cores, and on one: bench/ipc; taskset -c 0 bench/ipc
 * A line is a measurement, with tabs: table, row, value, unit; "# " a comment.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long word;
/* A lap is of messages. The slots are few, so that the cache can hold them. */
enum { piece = 64 << 10, words = piece / sizeof(word), lap = 64, slots = 4 };
enum { spinning, copying, semaphore, pipes, sockets, all_means };
static const struct row {
    const char *name;
    int means, size, burst; /* so many messages have one answer */
} rows[] = {{"shared memory, spinning", spinning, sizeof(word), 1},
            {"shared memory, semaphore", semaphore, sizeof(word), 1},
            {"pipe", pipes, sizeof(word), 1},
            {"socketpair", sockets, sizeof(word), 1},
            {"memcpy in cache", spinning, piece, 0}, /* to itself */
            {"ring, left in its slot", spinning, piece, lap},
            {"ring, copied out of it", copying, piece, lap},
            {"pipe", pipes, piece, lap},
            {"socketpair", sockets, piece, lap}};

/* One way. If both wrote to one cache line, they would keep taking it away. */
static struct way {
    _Alignas(64) _Atomic word sent;
    _Alignas(64) _Atomic word freed;
    word received;
    _Alignas(64) char slot[slots][piece];
    sem_t posted;
    int ends[2]; /* to read from, to write to */
} (*way)[2];
static word message[words];
static const char usage[] =
    "usage: ipc [--runs=N] [--milliseconds=N]\n"
    "Measure what messages between two processes cost: --runs times (5), by\n"
    "each means for --milliseconds (50). example: ipc --runs=1";

static long check(long result, const char *object)
{
    if (result == -1) err(1, "%s", object);
    return result;
}

/* Who waits for long may have the core that the other process needs. */
static void spin_while(const _Atomic word *counter, word value)
{
    int spins = 0;
    while (atomic_load_explicit(counter, memory_order_acquire) == value)
        if (spins++ == 1000) spins = sched_yield();
}

static void put(const struct row *row, struct way *to, int size, word number)
{
    const word sent = to->sent;
    const char *rest = (const char *)message;
    message[0] = message[size / sizeof number - 1] = number;
    if (row->means == pipes || row->means == sockets) {
        for (long n; size > 0; rest += n, size -= n)
            n = check(write(to->ends[1], rest, size), "write");
        return;
    }
    spin_while(&to->freed, sent - slots);
    memcpy(to->slot[sent % slots], message, size);
    atomic_store_explicit(&to->sent, sent + 1, memory_order_release);
    if (row->means == semaphore) check(sem_post(&to->posted), "sem_post");
}

/* A message in a slot stays there until the next get: who needs only a part of
   it reads no more than that, here its ends. Copied out, it is read whole. */
static const void *get(struct way *from, int means, size_t size)
{
    static char buffer[piece];
    if (means == pipes || means == sockets) {
        for (size_t n = 0; n < size;)
            n += check(read(from->ends[0], buffer + n, size - n), "read");
        return buffer;
    }
    atomic_store_explicit(&from->freed, from->received, memory_order_release);
    while (means == semaphore && sem_wait(&from->posted) == -1) continue;
    spin_while(&from->sent, from->received);
    const char *slot = from->slot[from->received++ % slots];
    return means == copying ? memcpy(buffer, slot, size) : slot;
}

/* Both ends are checked. To compare all takes longer than to send it: that is
   for the first lap, which is not timed, and every 61st, so in each slot. */
static void take(const struct row *row, struct way *from, int size, word number)
{
    const word *data = get(from, row->means, size);
    const size_t last = size / sizeof *data - 1;
    message[0] = message[last] = number;
    if (data[0] != number || data[last] != number ||
        ((number <= lap || number % 61 == 0) &&
         memcmp(data, message, size) != 0))
        errx(1, "%s: wrong data", row->name);
}

/* A pipe does not tell: both hold all its ends. A child says why it exits. */
static void child_ended(int status)
{
    if (waitpid(-1, &status, WNOHANG) < 1 || status == 0) return;
    /* NOLINTNEXTLINE(bugprone-signal-handler): nobody else prints meanwhile */
    if (WIFSIGNALED(status)) warnx("child: %s", strsignal(WTERMSIG(status)));
    _exit(1);
}

static void measure(const struct row *row, const cpu_set_t *cores, double least)
{
    struct way *there = way[row->means], *back = there + 1;
    struct timespec begin = {0}, now;
    double time = 0;
    signal(SIGCHLD, child_ended);
    const pid_t parent = getpid(), child = check(fork(), "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) _exit(1);
        check(sched_setaffinity(0, sizeof *cores, cores), "sched_setaffinity");
        if (row->burst == 0) pause();
        for (word number = 1;; number++) {
            take(row, there, row->size, number);
            if (number % row->burst == 0)
                put(row, back, sizeof number, number + 1);
        }
    }
    word number = 0;
    while (time < least) {
        put(row, there, row->size, ++number);
        if (row->burst == 0) take(row, there, row->size, number);
        if (row->burst != 0 && number % row->burst == 0)
            take(row, back, sizeof number, number + 1);
        if (number % lap != 0) continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (number == lap) begin = now;
        time = now.tv_sec - begin.tv_sec + (now.tv_nsec - begin.tv_nsec) / 1e9;
    }
    signal(SIGCHLD, SIG_DFL), kill(child, SIGKILL), waitpid(child, NULL, 0);
    time /= number - lap;
    printf(row->size == piece
               ? "throughput in pieces of 64 KiB\t%s\t%.4f\tGB/s\n"
               : "round trip of a word\t%s\t%.4f\tus\n",
           row->name, row->size == piece ? piece / time / 1e9 : time * 1e6);
    if (ferror(stdout)) err(1, "stdout");
}

int main(int argc, char *argv[])
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
    int runs = 5, milliseconds = 50, option, length;
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"milliseconds", 1, NULL, 'm'},
                                     {"runs", 1, NULL, 'r'},
                                     {NULL, 0, NULL, 0}};
    if (fcntl(1, F_GETFD) || fcntl(2, F_GETFD)) err(1, "stdout or stderr");
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        int *number = option == 'r' ? &runs : &milliseconds;
        if (option == '?') return 2;
        if (option == 'h') return check(puts(usage), "stdout") < 0;
        if (!strchr("123456789", *optarg) ||
            sscanf(optarg, "%5d%n", number, &length) != 1 || optarg[length])
            errx(2, "%s: not a number from 1 to 99999", optarg);
    }
    if (argc > optind) errx(2, "%s: try --help", argv[optind]);
    cpu_set_t cores, mine = {0};
    CPU_SET(check(sched_getcpu(), "sched_getcpu"), &mine);
    check(sched_getaffinity(0, sizeof cores, &cores), "sched_getaffinity");
    const int two = CPU_COUNT(&cores) > 1;
    /* Else they may be put on one core, where pipes are fast and rings slow. */
    if (two) CPU_XOR(&cores, &cores, &mine);
    check(sched_setaffinity(0, sizeof mine, &mine), "sched_setaffinity");
    way = mmap(NULL, all_means * sizeof *way, prot, flags, -1, 0);
    if (way == MAP_FAILED) err(1, "mmap");
    for (int i = 0; i < 2; i++) {
        check(sem_init(&way[semaphore][i].posted, 1, 0), "sem_init");
        check(pipe(way[pipes][i].ends), "pipe");
        fcntl(way[pipes][i].ends[1], F_SETPIPE_SZ,
              slots * piece); /* if it may */
        check(socketpair(AF_UNIX, SOCK_STREAM, 0, way[sockets][i].ends),
              "socketpair");
    }
    for (int i = 0; i < words; i++) message[i] = i * 2654435761;
    check(puts(two ? "# two cores" : "# one core: they take turns"), "stdout");
    for (; runs > 0; runs--)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            measure(&rows[i], &cores, milliseconds / 1e3);
}
