/* SPDX-License-Identifier: MIT */
/*
 * access: what it costs to use a file, mapped and by system calls. mmap(2)
 *
 *     mapped    program <------- load, store -------> page cache
 *     by calls  program <-> block <----- copy ------> page cache
 *     ./bench/access --runs=1 --directory=/dev/shm
 * A line for each measurement: table, row, value and unit, with tabs between.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct record {
    double balance, rest[4];
};
static const char usage[] =
    "usage: access [--runs=N] [--megabytes=N] [--directory=DIR]\n"
    "Measure 5 times what access to 256 MiB in $TMPDIR, or /tmp, costs.\n"
    "example: access --runs=1 --directory=/dev/shm";
static const int both = PROT_READ | PROT_WRITE;
static char block[64 << 10];
static double begin; /* of what is being measured */

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static int parse_number(const char *text, int most)
{
    char *end;
    const long number = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || number < 1 || number > most)
        errx(2, "%s: not a number from 1 to %d", text, most);
    return number;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Unlinked at once, so that even kill -9 leaves nothing. Written, because space
   that is only reserved is not in the page cache. */
static int create_file(const char *directory, size_t size, char content)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/access.XXXXXX", directory);
    const int fd = mkostemp(path, O_CLOEXEC);
    if (fd == -1 || unlink(path) == -1) err(1, "%s", path);
    if ((errno = posix_fallocate(fd, 0, size)) != 0) err(1, "%s", path);
    memset(block, content, sizeof block);
    for (size_t at = 0; at < size; at += sizeof block)
        if (pwrite(fd, block, sizeof block, at) == -1) err(1, "%s", path);
    return fd;
}

static void update_mapped(struct record *records, int count)
{
    unsigned seed = 1;
    for (int i = 0; i < count; i++) records[rand_r(&seed) % count].balance += 1;
}

static void update_by_calls(int fd, int count)
{
    unsigned seed = 1;
    struct record record;
    for (int i = 0; i < count; i++) {
        const off_t at = rand_r(&seed) % count * sizeof record;
        if (pread(fd, &record, sizeof record, at) == -1) err(1, "pread");
        record.balance += 1;
        if (pwrite(fd, &record, sizeof record, at) == -1) err(1, "pwrite");
    }
}

static void report_updates(const char *row, const struct record *records,
                           int count, double sum)
{
    const double ns = (now() - begin) * 1e9 / count;
    for (int i = 0; i < count; i++) sum -= records[i].balance;
    if (sum != 0) errx(1, "%s: wrong data", row);
    printf("random update of a 40-byte record\t%s\t%.3f\tns\n", row, ns);
    begin = now();
}

static void report_pass(const char *row, size_t size, int right)
{
    const double seconds = now() - begin;
    if (!right) errx(1, "%s: wrong data", row);
    printf("one pass over a file\t%s\t%.3f\tGB/s\n", row, size / seconds / 1e9);
    begin = now();
}

/* A pass looks for the byte at the end. memchr() reads all, alike in each row,
   and is fast however this file is compiled. */
static int ends_right(const char *bytes, size_t size)
{
    return memchr(bytes, '!', size) == bytes + size - 1;
}

static int read_pass(int fd, size_t size)
{
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, block, sizeof block)) > 0; size -= n)
        if (ends_right(block, n)) return size == (size_t)n;
    return 0;
}

/* Once over a fresh mapping: mmap(), munmap(), and a fault wherever it comes
   to pages that the kernel has not mapped along with those before. */
static void map_pass(const char *row, int fd, size_t size, int more, int advice)
{
    const int prot = PROT_READ, flags = MAP_SHARED | more;
    char *bytes = mmap(NULL, size, prot, flags, fd, 0);
    if (bytes == MAP_FAILED) err(1, "mmap");
    madvise(bytes, size, advice);
    const int right = ends_right(bytes, size);
    munmap(bytes, size);
    report_pass(row, size, right);
}

/* The mean of 1000 calls; -1 where nothing can be as large as that. */
static int map_sparse(const char *row, int fd, off_t size)
{
    double us = 0;
    if ((off_t)(size_t)size != size || ftruncate(fd, size) == -1) return -1;
    for (int i = 0; i < 1000; i++) {
        begin = now();
        void *start = mmap(NULL, size, both, MAP_SHARED, fd, 0);
        us += (now() - begin) * 1e6 / 1000;
        if (start == MAP_FAILED) return -1;
        munmap(start, size);
    }
    return printf("mmap() of a sparse file\t%s\t%.3f\tus\n", row, us);
}

/* A huge page would be 512 pages at a single touch. */
static void touch(const char *row, int fd, size_t size, int prot, int flags)
{
    const size_t page = sysconf(_SC_PAGESIZE);
    volatile char *start = mmap(NULL, size, prot, flags, fd, 0);
    if (start == MAP_FAILED) err(1, "mmap");
    madvise((char *)start, size, MADV_NOHUGEPAGE);
    begin = now();
    for (size_t at = 0; at < size; at += page)
        prot == both ? (void)(start[at] = 'x') : (void)start[at];
    const double ns = (now() - begin) * 1e9 * page / size;
    printf("first touch of a page\t%s\t%.3f\tns per page\n", row, ns);
    munmap((char *)start, size);
}

int main(int argc, char *argv[])
{
    const char *const rows[] = {"1 MiB", "1 GiB", "1 TiB"};
    const char *directory = getenv("TMPDIR");
    if (!directory || !*directory) directory = "/tmp";
    int option, most = 3, runs = 5, megabytes = 256;
    const struct option options[] = {{"directory", 1, NULL, 'd'},
                                     {"help", 0, NULL, 'h'},
                                     {"megabytes", 1, NULL, 'm'},
                                     {"runs", 1, NULL, 'r'},
                                     {NULL, 0, NULL, 0}};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'd') directory = optarg;
        if (option == 'h') return puts(usage), flush_stdout(), 0;
        if (option == 'm') megabytes = parse_number(optarg, 4000);
        if (option == 'r') runs = parse_number(optarg, 1000);
        if (option == '?') return 2;
    }
    if (argc != optind) errx(2, "%s: not an option; try --help", argv[optind]);
    signal(SIGXFSZ, SIG_IGN), setvbuf(stdout, NULL, _IOLBF, 0);
    const size_t size = (size_t)megabytes << 20;
    const int count = size < 40000000 ? size / 40 : 1000000;
    const int bank = create_file(directory, count * 40, 0);
    const int text = create_file(directory, size, 'x');
    const int sparse = create_file(directory, 1, 0);
    if (pwrite(text, "!", 1, size - 1) != 1) err(1, "%s", directory);
    struct record *records = mmap(NULL, count * 40, both, MAP_SHARED, bank, 0);
    char *old = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, text, 0);
    if (records == MAP_FAILED || old == MAP_FAILED) err(1, "mmap");
    printf("# access: a file of %d MiB in %s\n", megabytes, directory);
    flush_stdout();
    for (int run = 1; run <= runs; run++) {
        begin = now();
        update_mapped(records, count);
        report_updates("mapped", records, count, (2.0 * run - 1) * count);
        update_by_calls(bank, count);
        report_updates("pread and pwrite", records, count, 2.0 * run * count);
        report_pass("read, into 64 KiB", size, read_pass(text, size));
        map_pass("mapped", text, size, 0, MADV_NORMAL);
        map_pass("mapped, MAP_POPULATE", text, size, MAP_POPULATE, 0);
        map_pass("mapped, MADV_SEQUENTIAL", text, size, 0, MADV_SEQUENTIAL);
        report_pass("mapped, second pass", size, ends_right(old, size));
        for (int i = 0; i < most; i++)
            if (map_sparse(rows[i], sparse, (off_t)1 << (20 + 10 * i)) == -1)
                most = i, printf("# no file or address space of %s\n", rows[i]);
        touch("anonymous", -1, size, both, MAP_PRIVATE | MAP_ANONYMOUS);
        touch("file, read", text, size, PROT_READ, MAP_SHARED);
        touch("file, write", text, size, both, MAP_SHARED);
        touch("second touch", text, size, PROT_READ, MAP_SHARED | MAP_POPULATE);
        flush_stdout();
    }
}
