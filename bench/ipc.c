/* SPDX-License-Identifier: MIT */
/*
 * ipc: how long a message from one process to another takes.
 *
 *     ping                kernel               pong
 *     message --copy--> a buffer --copy--> message     pipe, socketpair
 *     message --copy--> a slot that both of them map   shared memory
 *
 *     ./bench/ipc
 *     taskset -c 0 ./bench/ipc
 *
 * pipe(7), unix(7), sem_overview(7), sched(7)
 */
#define _GNU_SOURCE
#include <err.h>
#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines. */
static double duration = 0.05; /* of the measurement of a row, in seconds */
enum { SLOTS = 4, PIECE = 64 << 10 };

/* Messages are timed in laps of 16. Pong answers each message, or the last of
   each lap, or none. A message begins and ends with its number. */
enum { LAP = 16, EACH = 1, LAST = LAP, NONE = INT_MAX, WORD = 8 };
static uint64_t message[PIECE / WORD];

/* One direction. Each counter has a cache line to itself, because two cores
   that write to the same line take it from each other. */
struct way {
    _Alignas(64) _Atomic uint64_t sent;
    _Alignas(64) _Atomic uint64_t taken;
    _Alignas(64) uint64_t slot[SLOTS][PIECE / WORD];
    sem_t posted;
    int ends[2]; /* the descriptors to read from and to write to */
    double lap;  /* the fastest, in seconds */
};
static struct way *way; /* way[0] leads from ping to pong, way[1] back */

static const struct row {
    enum { SPIN, POST, COPY_OUT, CACHE, PIPE, SOCKETPAIR } means;
    int size, answers;
    const char *name;
} rows[] = {{SPIN, WORD, EACH, "shared memory, spinning"},
            {POST, WORD, EACH, "shared memory, semaphore"},
            {SOCKETPAIR, WORD, EACH, "socketpair"},
            {PIPE, WORD, EACH, "pipe"},
            {SPIN, PIECE, LAST, "ring, left in its slot"},
            {COPY_OUT, PIECE, LAST, "ring, copied out of it"},
            {CACHE, PIECE, NONE, "memcpy in cache"},
            {SOCKETPAIR, PIECE, LAST, "socketpair"},
            {PIPE, PIECE, LAST, "pipe"}};
static const struct row *row; /* the row that is being measured */

static void open_ways(void);
static pid_t start(void (*role)(void), const cpu_set_t *cores);
static void ping(void);
static void pong(void);
static void put(struct way *to, int size, uint64_t number);
static void take(struct way *from, int size, uint64_t number);

int main(int argc, char *argv[])
{
    if (argc > 1) errx(2, "%s: unexpected argument\nusage: ipc", argv[1]);
    setvbuf(stdout, NULL, _IOLBF, 0);

    /* Where there is a second core, ping has a core to itself. */
    cpu_set_t here = {0}, elsewhere;
    const int core = sched_getcpu();
    if (sched_getaffinity(0, sizeof elsewhere, &elsewhere) == -1)
        err(1, "sched_getaffinity");
    CPU_SET(core, &here);
    if (CPU_COUNT(&elsewhere) > 1) CPU_CLR(core, &elsewhere);

    for (row = rows; row < rows + sizeof rows / sizeof *rows; row++) {
        way = mmap(NULL, 2 * sizeof *way, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (way == MAP_FAILED) err(1, "mmap");
        open_ways();
        start(ping, &here);
        const pid_t answerer = start(pong, &elsewhere);
        int status;
        wait(&status);
        if (WIFSIGNALED(status)) errx(1, "%s: a process was killed", row->name);
        if (status != 0) return 1; /* the process has printed the reason */
        kill(answerer, SIGKILL);
        wait(NULL);
        printf("%s\t%s\t%.4f\tus\n",
               row->size == WORD ? "round trip of a word"
                                 : "transfer of a piece of 64 KiB",
               row->name, way->lap / LAP * 1e6);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void open_ways(void)
{
    for (int i = 0; i < 2; i++) {
        if (sem_init(&way[i].posted, 1, 0) == -1) err(1, "sem_init");
        if (row->means == PIPE && pipe(way[i].ends) == -1) err(1, "pipe");
        if (row->means == SOCKETPAIR &&
            socketpair(AF_UNIX, SOCK_STREAM, 0, way[i].ends) == -1)
            err(1, "socketpair");
    }
}

static pid_t start(void (*role)(void), const cpu_set_t *cores)
{
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child > 0) return child;
    /* No child outlives the parent, whatever ends it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) exit(1);
    if (sched_setaffinity(0, sizeof *cores, cores) == -1)
        err(1, "sched_setaffinity");
    role();
    exit(0);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The fastest lap counts, because other programs disturb many of the laps. */
static void ping(void)
{
    double lap_start = now();
    const double end = lap_start + duration;
    for (uint64_t n = 1; n <= 2 * LAP || lap_start < end; n++) {
        put(&way[0], row->size, n);
        if (n % row->answers == 0) take(&way[1], WORD, n / row->answers);
        if (n % LAP != 0) continue;
        const double seconds = now() - lap_start;
        if (n == LAP || seconds < way->lap) way->lap = seconds;
        lap_start = now();
    }
}

static void pong(void)
{
    for (uint64_t n = 1;; n++) {
        take(&way[0], row->size, n);
        if (n % row->answers == 0) put(&way[1], WORD, n / row->answers);
    }
}

static void put(struct way *to, int size, uint64_t number)
{
    message[0] = number;
    message[size / WORD - 1] = number;
    if (row->means == PIPE || row->means == SOCKETPAIR) {
        if (write(to->ends[1], message, size) != size) err(1, "write");
        return;
    }
    while (row->means != CACHE && number - to->taken > SLOTS)
        continue; /* spin */
    memcpy(to->slot[number % SLOTS], message, size);
    if (row->means != CACHE) to->sent = number; /* in CACHE pong only waits */
    if (row->means == POST && sem_post(&to->posted) == -1) err(1, "sem_post");
}

/* Bytes from a pipe can arrive in parts. From a slot in shared memory, the
   receiver can load what it needs, here the number. */
static void take(struct way *from, int size, uint64_t number)
{
    const uint64_t *words = message;
    if (row->means == PIPE || row->means == SOCKETPAIR) {
        for (int done = 0; done < size;) {
            const int got =
                read(from->ends[0], (char *)message + done, size - done);
            if (got == -1) err(1, "read");
            done += got;
        }
    } else {
        if (row->means == POST && sem_wait(&from->posted) == -1)
            err(1, "sem_wait");
        while (from->sent < number) continue; /* spin */
        words = from->slot[number % SLOTS];
        if (row->means == COPY_OUT) words = memcpy(message, words, size);
    }
    if (words[0] != number || words[size / WORD - 1] != number)
        errx(1, "%s: message %ju did not arrive", row->name, number);
    from->taken = number;
}
