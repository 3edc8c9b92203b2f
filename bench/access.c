/* SPDX-License-Identifier: MIT */
/*
 * access: what it costs to use a file, mapped and by system calls.
 *
 *     mapped    program <------- load, store -------> page cache
 *     by calls  program <-> block <----- copy ------> page cache
 *
 *     ./bench/access --runs=1
 *     ./bench/access --runs=1 --directory=/dev/shm
 *
 * A line is a measurement, with tabs: table, row, value, unit; "# " a comment.
 * mmap(2), madvise(2), pread(2)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int flags = MAP_SHARED;
static int runs = 5;
static int megabytes = 256;
static const char *directory = "/tmp"; /* or what TMPDIR says */

struct record {
    double balance;
    double rest[4];
};
static const int both = PROT_READ | PROT_WRITE;
static char block[64 << 10]; /* for read() and write() */
static double begin;         /* of what is being measured, in seconds */

static int create_file(size_t size, char content);
static void update(int fd, struct record *records, int count, int run);
static void pass(int fd, size_t size, const char *old);
static void map_sparse(int fd);
static void touch(const char *row, int fd, size_t size, int prot, int how);
static double now(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line when it is measured */
    signal(SIGXFSZ, SIG_IGN);         /* a limit is an error of the call */

    const size_t size = (size_t)megabytes << 20;
    const size_t most = size / sizeof(struct record);
    const int count = most < 1000000 ? most : 1000000;
    const size_t bytes = count * sizeof(struct record);

    const int bank = create_file(bytes, 0);
    struct record *records = mmap(NULL, bytes, both, flags, bank, 0);
    if (records == MAP_FAILED) err(1, "mmap of %d records", count);

    const int text = create_file(size, 'x');
    if (pwrite(text, "!", 1, size - 1) != 1) err(1, "%s", directory);
    char *old = mmap(NULL, size, PROT_READ, flags | MAP_POPULATE, text, 0);
    if (old == MAP_FAILED) err(1, "mmap of %d MiB", megabytes);

    const int sparse = create_file(1, 0);
    printf("# access: a file of %d MiB in %s\n", megabytes, directory);
    flush_stdout();
    for (int run = 0; run < runs; run++) {
        update(bank, records, count, run);
        pass(text, size, old);
        map_sparse(sparse);
        touch("anonymous", -1, size, both, MAP_PRIVATE | MAP_ANONYMOUS);
        touch("file, read", text, size, PROT_READ, flags);
        touch("file, write", text, size, both, flags);
        touch("second touch", text, size, PROT_READ, flags | MAP_POPULATE);
        flush_stdout();
    }
}

/* Unlinked at once, so that even kill -9 leaves nothing. Written, because space
   that is only reserved is not in the page cache. */
static int create_file(size_t size, char content)
{
    char path[PATH_MAX];
    const int length =
        snprintf(path, sizeof path, "%s/access.XXXXXX", directory);
    if (length >= (int)sizeof path) errx(1, "%s: too long", directory);
    const int fd = mkostemp(path, O_CLOEXEC);
    if (fd == -1) err(1, "%s", path);
    if (unlink(path) == -1) err(1, "%s", path);

    memset(block, content, sizeof block);
    size_t at = 0;
    while (at < size) {
        size_t rest = size - at;
        if (rest > sizeof block) rest = sizeof block;
        const ssize_t written = pwrite(fd, block, rest, at);
        if (written == -1) err(1, "%s", path);
        at += written;
    }
    return fd;
}

static void report(const char *table, const char *row, double value,
                   const char *unit)
{
    printf("%s\t%s\t%.3f\t%s\n", table, row, value, unit);
}

static void report_updates(const char *row, const struct record *records,
                           int count, double sum)
{
    const double ns = (now() - begin) * 1e9 / count;
    for (int i = 0; i < count; i++) sum -= records[i].balance;
    if (sum != 0) errx(1, "%s: wrong data", row);
    report("random update of a 40-byte record", row, ns, "ns");
}

/* Each way adds 1 as often as there are records, somewhere: the sum of all the
   balances is known. Each run before has added 2 per record. */
static void update(int fd, struct record *records, int count, int run)
{
    double sum = 2.0 * run * count;
    unsigned seed = 1;
    begin = now();
    for (int i = 0; i < count; i++) records[rand_r(&seed) % count].balance += 1;
    report_updates("mapped", records, count, sum + count);

    seed = 1;
    begin = now();
    for (int i = 0; i < count; i++) {
        struct record record;
        const off_t at = rand_r(&seed) % count * sizeof record;
        if (pread(fd, &record, sizeof record, at) == -1) err(1, "pread");
        record.balance += 1;
        if (pwrite(fd, &record, sizeof record, at) == -1) err(1, "pwrite");
    }
    report_updates("pread and pwrite", records, count, sum + 2.0 * count);
}

static void report_pass(const char *row, size_t size, int right)
{
    const double seconds = now() - begin;
    if (!right) errx(1, "%s: wrong data", row);
    report("one pass over a file", row, size / seconds / 1e9, "GB/s");
}

/* A pass looks for the byte at the end. memchr() reads all, alike in each row,
   and is fast however this file is compiled. */
static int ends_right(const char *bytes, size_t size)
{
    return memchr(bytes, '!', size) == bytes + size - 1;
}

static int read_pass(int fd, size_t size)
{
    size_t before = 0; /* bytes, of the blocks before this one */
    if (lseek(fd, 0, SEEK_SET) == -1) err(1, "lseek");
    for (;;) {
        const ssize_t got = read(fd, block, sizeof block);
        if (got == -1) err(1, "read");
        if (got == 0) return 0;
        if (ends_right(block, got)) return before + got == size;
        before += got;
    }
}

/* Once over a fresh mapping: what is measured is mmap(), a page fault wherever
   the kernel has not mapped the page along with one before, and munmap(). */
static void map_pass(const char *row, int fd, size_t size, int how, int advice)
{
    begin = now();
    char *bytes = mmap(NULL, size, PROT_READ, how, fd, 0);
    if (bytes == MAP_FAILED) err(1, "mmap");
    if (madvise(bytes, size, advice) == -1) err(1, "madvise");
    const int right = ends_right(bytes, size);
    if (munmap(bytes, size) == -1) err(1, "munmap");
    report_pass(row, size, right);
}

static void pass(int fd, size_t size, const char *old)
{
    begin = now();
    report_pass("read, into 64 KiB", size, read_pass(fd, size));
    map_pass("mapped", fd, size, flags, MADV_NORMAL);
    const int populated = flags | MAP_POPULATE;
    map_pass("mapped, MAP_POPULATE", fd, size, populated, MADV_NORMAL);
    map_pass("mapped, MADV_SEQUENTIAL", fd, size, flags, MADV_SEQUENTIAL);
    begin = now();
    report_pass("mapped, second pass", size, ends_right(old, size));
}

/* The mean of 1000 calls in microseconds, or -1 where nothing is so large. */
static double time_of_mmap(int fd, off_t size)
{
    if ((off_t)(size_t)size != size) return -1; /* on 32 bits */
    if (ftruncate(fd, size) == -1) return -1;
    double us = 0;
    for (int i = 0; i < 1000; i++) {
        begin = now();
        void *start = mmap(NULL, size, both, flags, fd, 0);
        us += (now() - begin) * 1e6 / 1000;
        if (start == MAP_FAILED) return -1;
        if (munmap(start, size) == -1) err(1, "munmap");
    }
    return us;
}

static void map_sparse(int fd)
{
    static const char *const rows[] = {"1 MiB", "1 GiB", "1 TiB"};
    static int possible = 3;
    for (int i = 0; i < possible; i++) {
        const double us = time_of_mmap(fd, (off_t)1 << (20 + 10 * i));
        if (us == -1) {
            printf("# no file or address space of %s\n", rows[i]);
            possible = i;
        } else {
            report("mmap() of a sparse file", rows[i], us, "us");
        }
    }
}

/* A huge page would be 512 pages at a single touch. The advice against them
   fails only where there are none. */
static void touch(const char *row, int fd, size_t size, int prot, int how)
{
    const size_t page = sysconf(_SC_PAGESIZE);
    char *start = mmap(NULL, size, prot, how, fd, 0);
    if (start == MAP_FAILED) err(1, "mmap");
    madvise(start, size, MADV_NOHUGEPAGE);

    volatile char *byte = start;
    begin = now();
    if (prot == both)
        for (size_t at = 0; at < size; at += page) byte[at] = 'x';
    else
        for (size_t at = 0; at < size; at += page) (void)byte[at];
    const double ns = (now() - begin) * 1e9 * page / size;
    report("first touch of a page", row, ns, "ns per page");
    if (munmap(start, size) == -1) err(1, "munmap");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: access [--runs=N] [--megabytes=N] [--directory=DIR]\n"
         "Measure 5 times what access to 256 MiB in $TMPDIR, or /tmp, costs.\n"
         "example: access --runs=1 --directory=/dev/shm");
    flush_stdout();
    exit(0);
}

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"directory", 1, NULL, 'd'},
                                     {"help", 0, NULL, 'h'},
                                     {"megabytes", 1, NULL, 'm'},
                                     {"runs", 1, NULL, 'r'},
                                     {NULL, 0, NULL, 0}};
    const char *place = getenv("TMPDIR");
    if (place && *place) directory = place;
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'd': directory = optarg; break;
        case 'h': usage(); break;
        case 'm': megabytes = parse_number(optarg, 1, 4000); break;
        case 'r': runs = parse_number(optarg, 1, 1000); break;
        case '?': exit(2);
        }
    if (optind < argc) errx(2, "%s: unexpected; try --help", argv[optind]);
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
