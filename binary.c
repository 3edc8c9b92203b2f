/* SPDX-License-Identifier: MIT */
/*
 * binary: a file as an array of structs, updated in place. mmap(2), flock(2)
 *
 *     byte 0             40                 80
 *     +----+------+------+----+------+------+----+------+------+
 *     | id | name | bal. | id | name | bal. | id | name | bal. | ...
 *     +----+------+------+----+------+------+----+------+------+
 *     records[0]         records[1]         records[2].balance += 50.50
 *     ./binary /tmp/database.bin && xxd -c 40 /tmp/database.bin
 *     ./binary --unchecked /tmp/database.bin 10 50.50
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    _Atomic uint32_t id; /* from 1; atomic: stored in order */
    char name[28];
    double balance;
};
_Static_assert(sizeof(struct record) == 40, "one row of xxd -c 40");

static sigset_t all_signals; /* they wait while a file is created */
static const char *created;  /* a new file, which goes if stdout fails */

static void flush_stdout(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return;
    if (created) unlink(created);
    err(1, "stdout");
}

static void usage(void)
{
    puts("usage: binary [--records=N] [--unchecked] FILE [ID BONUS]\n"
         "Pay BONUS (50.50) to record ID (3) of FILE, and show the records.\n"
         "  --records=N  how many (5) to create, if FILE is absent or empty\n"
         "  --unchecked  write to record ID even where there is none\n"
         "example: binary /tmp/database.bin 5 -- -0.25");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

static uint32_t parse_number(const char *text)
{
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || number - 1 >= UINT32_MAX)
        errx(2, "%s: not a number from 1 to %u", text, UINT32_MAX);
    return number;
}

/* Of two runs one creates the file; the lock lets one after the other in.
   ftruncate() would reserve no space, and a full disk be SIGBUS later on. */
static int open_locked(const char *path, uint32_t count)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;
    const int create = count > 0 ? O_CREAT | O_EXCL : 0;
    struct stat status;
    int fd = open(path, flags | create, 0600);
    created = create && fd != -1 ? path : NULL;
    if (fd == -1 && errno == EEXIST) fd = open(path, flags);
    if (fd == -1 && errno == ENOENT && !create) errx(1, "%s: no record", path);
    if (fd == -1 || flock(fd, LOCK_EX) == -1 || fstat(fd, &status) == -1)
        err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    if (status.st_size > 0 || !create) return fd;
    sigprocmask(SIG_BLOCK, &all_signals, NULL);
    if ((errno = posix_fallocate(fd, 0, count * 40LL)) == 0) return fd;
    if (ftruncate(fd, 0) == 0 && created) unlink(path);
    err(1, "%s", path);
}

/* Record 1 gets its id last: a 0 there means that a run was killed. */
static void fill(struct record *records, uint32_t count)
{
    for (uint32_t i = count; i-- > 0;) {
        snprintf(records[i].name, sizeof records[i].name, "User_%u", i + 1);
        records[i].balance = 100.0 * (i + 1);
        records[i].id = i + 1;
    }
}

/* Beyond the last record the page goes on, but the file does not. */
static void pay(struct record *records, uint32_t id, double bonus, int fd)
{
    double in_file, *balance = &records[id - 1].balance;
    const long byte = (char *)balance - (char *)records;
    printf("paying %.2f to record %u, at byte %ld of %ld: ", bonus, id, byte,
           (long)lseek(fd, 0, SEEK_END));
    flush_stdout();
    created = NULL;
    *balance += bonus;
    const int same = pread(fd, &in_file, 8, byte) == 8 && in_file == *balance;
    printf("%.2f in memory, %s in the file\n", *balance,
           same ? "the same" : "nothing");
}

static void print_table(const struct record *records, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i == 5 && count > 10) i = count - 5, printf("       ...\n");
        printf("%10u  %-28.28s %14.2f\n", records[i].id, records[i].name,
               records[i].balance);
    }
}

int main(int argc, char *argv[])
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    int unchecked = 0, option;
    uint32_t count = 5, id = 3;
    double bonus = 50.50;
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"records", 1, NULL, 'r'},
                                     {"unchecked", 0, &unchecked, 1},
                                     {NULL, 0, NULL, 0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') usage();
        if (option == 'r') count = parse_number(optarg);
        if (option == '?') return 2;
    }
    argc -= optind, argv += optind;
    if (argc != 1 && argc != 3) errx(2, "want FILE [ID BONUS]; try --help");
    if (argc == 3) id = parse_number(argv[1]);
    char rest;
    if (argc == 3 && (sscanf(argv[2], "%lf%c", &bonus, &rest) != 1 ||
                      !(bonus > -1e9 && bonus < 1e9)))
        errx(2, "%s: not an amount below 1e9", argv[2]);
    guard_streams();
    sigfillset(&all_signals);
    int fd = open_locked(argv[0], id <= count || unchecked ? count : 0);
    off_t size = lseek(fd, 0, SEEK_END);
    if (size % sizeof(struct record) != 0) errx(1, "%s: cut records", argv[0]);
    count = size / sizeof(struct record);
    if (id > count && !unchecked) errx(1, "%s: no record %u", argv[0], id);
    struct record *records = mmap(NULL, size, prot, flags, fd, 0);
    if (records == MAP_FAILED) err(1, "%s", argv[0]);
    if (records[0].id == 0 && !records[0].name[27]) fill(records, count);
    sigprocmask(SIG_UNBLOCK, &all_signals, NULL);
    if (records[0].id != 1) errx(1, "%s: not a database of ours", argv[0]);
    pay(records, id, bonus, fd);
    print_table(records, count);
    flush_stdout();
}
