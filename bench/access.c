/* SPDX-License-Identifier: MIT */
/*
 * access: how long it takes to use a file, mapped and by system calls.
 *
 *     mapped    program <------ load, store -----> page cache
 *     by calls  program <-> buffer <--- copy ----> page cache
 *
 *     ./bench/access
 *     TMPDIR=/dev/shm ./bench/access
 *
 * The file is in $TMPDIR, or in /tmp. It has no name, so nothing is left of it.
 * mmap(2), madvise(2), pread(2)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
enum { SIZE = 64 << 20, UPDATES = 200000, PAGES = 1000, MAPPINGS = 50 };

struct record {
    unsigned balance;
    char rest[36];
};
enum { RECORDS = SIZE / sizeof(struct record) };

static void update(int fd, struct record *records);
static void read_all(int fd);
static void load_all(const char *row, const char *file, clock_t start);
static void use_pages(int fd);
static void touch(const char *row, int fd, int its_prot, int its_flags);
static void map_sparse(const char *row, int fd, off_t size);

int main(int argc, char *argv[])
{
    if (argc > 1) errx(2, "%s: unexpected argument\nusage: access", argv[1]);
    const char *directory = getenv("TMPDIR");
    if (directory == NULL) directory = "/tmp";
    const int fd = open(directory, O_TMPFILE | O_RDWR, 0600);
    if (fd == -1) err(1, "%s", directory);
    const int error = posix_fallocate(fd, 0, SIZE);
    if (error != 0) errx(1, "%s: %s", directory, strerror(error));

    char *file = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (file == MAP_FAILED) err(1, "%s: mmap", directory);
    memset(file, 'x', SIZE); /* now each page is in the page cache */

    update(fd, (struct record *)file);
    file[SIZE - 1] = '!';
    read_all(fd);
    load_all("mapped, second pass", file, clock());
    const clock_t start = clock();
    const char *fresh = mmap(NULL, SIZE, PROT_READ, flags, fd, 0);
    if (fresh == MAP_FAILED) err(1, "%s: mmap", directory);
    load_all("mapped", fresh, start);
    use_pages(fd);

    touch("file, read", fd, PROT_READ, flags);
    touch("file, populated", fd, PROT_READ, flags | MAP_POPULATE);
    touch("file, write", fd, prot, flags);
    touch("anonymous", -1, prot, MAP_PRIVATE | MAP_ANONYMOUS);

    const int sparse = memfd_create("sparse", MFD_CLOEXEC);
    if (sparse == -1) err(1, "memfd_create");
    map_sparse("1 MiB", sparse, 1 << 20);
    map_sparse("1 GiB", sparse, 1 << 30);
    map_sparse("1 TiB", sparse, (off_t)1 << 40);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* Prints the CPU time of each of `count` actions. While another program uses
   the CPU, the clock stands still. */
static void report(const char *table, const char *row, clock_t start, int count)
{
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("%s\t%s\t%.4f\tus\n", table, row, seconds * 1e6 / count);
}

/* The calls undo the updates of the mapping, in the same order. */
static void update(int fd, struct record *records)
{
    static const char table[] = "random update of a 40-byte record";
    unsigned seed = 1;
    clock_t start = clock();
    for (int i = 0; i < UPDATES; i++)
        records[rand_r(&seed) % RECORDS].balance += 1;
    report(table, "mapped", start, UPDATES);

    seed = 1;
    start = clock();
    for (int i = 0; i < UPDATES; i++) {
        struct record record;
        const off_t offset = rand_r(&seed) % RECORDS * sizeof record;
        if (pread(fd, &record, sizeof record, offset) == -1) err(1, "pread");
        record.balance -= 1;
        if (pwrite(fd, &record, sizeof record, offset) == -1) err(1, "pwrite");
    }
    report(table, "pread and pwrite", start, UPDATES);

    /* Each record is as it was, so it is the same as the next one. */
    if (memcmp(records, records + 1, (RECORDS - 1) * sizeof *records) != 0)
        errx(1, "%s: a balance is wrong", table);
}

/* A pass looks for the last byte of the file. memchr() loads every byte, and is
   fast however this program is compiled. */
static const char one_pass[] = "one pass over a file, per MiB";

static void read_all(int fd)
{
    static char buffer[64 << 10];
    const char *last = NULL;
    const clock_t start = clock();
    while (last == NULL) {
        if (read(fd, buffer, sizeof buffer) < 1) err(1, "read");
        last = memchr(buffer, '!', sizeof buffer);
    }
    report(one_pass, "read, into 64 KiB", start, SIZE >> 20);
}

static void load_all(const char *row, const char *file, clock_t start)
{
    if (memchr(file, '!', SIZE) == NULL) errx(1, "%s: no last byte", row);
    report(one_pass, row, start, SIZE >> 20);
}

/* Each page is used once, and only its first byte. */
static void use_pages(int fd)
{
    static const char table[] = "one byte of a file, once";
    const long page = sysconf(_SC_PAGESIZE);
    char byte;
    clock_t start = clock();
    for (int i = 0; i < PAGES; i++)
        if (pread(fd, &byte, 1, i * page) != 1) err(1, "pread");
    report(table, "pread", start, PAGES);

    start = clock();
    for (int i = 0; i < PAGES; i++) {
        volatile char *bytes = mmap(NULL, 1, PROT_READ, flags, fd, i * page);
        if (bytes == MAP_FAILED) err(1, "mmap");
        (void)*bytes;
        if (munmap((void *)bytes, 1) == -1) err(1, "munmap");
    }
    report(table, "mmap, load, munmap", start, PAGES);
}

/* With MAP_POPULATE, mmap() touches each page first. A huge page would be 512
   pages at one touch. madvise() fails only where there are no huge pages. */
static void touch(const char *row, int fd, int its_prot, int its_flags)
{
    const long page = sysconf(_SC_PAGESIZE);
    volatile char *bytes = mmap(NULL, SIZE, its_prot, its_flags, fd, 0);
    if (bytes == MAP_FAILED) err(1, "mmap");
    madvise((void *)bytes, SIZE, MADV_NOHUGEPAGE);

    const clock_t start = clock();
    for (long at = 0; at < SIZE; at += page)
        if (its_prot == prot)
            bytes[at] = 'x';
        else
            (void)bytes[at];
    report("first touch of a page", row, start, SIZE / page);
}

/* If the address space is too small, there is no row. The mappings remain. */
static void map_sparse(const char *row, int fd, off_t size)
{
    if (ftruncate(fd, size) == -1) err(1, "%s: ftruncate", row);
    const clock_t start = clock();
    for (int i = 0; i < MAPPINGS; i++)
        if (mmap(NULL, size, prot, flags, fd, 0) == MAP_FAILED) return;
    report("mmap() of a sparse file", row, start, MAPPINGS);
}
