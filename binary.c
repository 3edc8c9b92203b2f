/* SPDX-License-Identifier: MIT */
/*
 * binary: a file as an array of structs, updated in place.
 *
 *     byte 0             40                 80
 *     +----+------+------+----+------+------+----+------+------+
 *     | id | name | bal. | id | name | bal. | id | name | bal. | ...
 *     +----+------+------+----+------+------+----+------+------+
 *     records[0]         records[1]         records[2].balance += 50.50
 *
 *     ./binary /tmp/database.bin && xxd -c 40 /tmp/database.bin
 *     ./binary --unchecked /tmp/database.bin 10 50.50
 *
 * mmap(2), flock(2), posix_fallocate(3)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static uint32_t new_count = 5; /* how many records a new file gets */
static uint32_t id = 3;        /* the record that is paid; the first is 1 */
static double bonus = 50.50;
static int unchecked; /* pay even a record that is not in the file */

struct record {
    uint32_t id;
    char name[28];
    double balance;
};
_Static_assert(sizeof(struct record) == 40, "one row of xxd -c 40");

/* The first record of a file that is not yet complete. What a killed run has
   left is known by it, and is done again; any other file is not ours. */
static const struct record unfinished = {0, "unfinished, of binary.c", 0};

static const char *path;
static volatile int fd;        /* the handlers of signals use it, too */
static struct record *records; /* the file, in memory */

/* What undo() has to undo, if nobody is paid. */
static const char *volatile new_file; /* a file to remove, or NULL */
static volatile int filling;          /* an old file to empty again */

static void check_records(size_t count);
static int is_ours(const struct record *record, size_t number);
static void pay(void);
static void print_table(size_t count);
static void print_rows(size_t from, size_t to);
static void open_database(void);
static int open_or_create(int *created);
static int create(void);
static void own(int file);
static int has_its_name(int file);
static void make_records(void);
static void set_record(struct record *record, uint32_t number);
static void write_first(const struct record *record);
static void undo(void);
static void end_by_signal(int number);
static void explain_faults(void);
static long long file_size(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    explain_faults();
    open_database(); /* from now on, nobody else pays */

    const long long size = file_size();
    const size_t count = size / sizeof *records;
    if (size % sizeof *records != 0) errx(1, "%s: cut records", path);
    if (id > count && !unchecked) errx(1, "%s: no record %u", path, id);

    records = mmap(NULL, size, prot, flags, fd, 0);
    if (records == MAP_FAILED) err(1, "%s: mmap", path);

    check_records(count);
    pay();
    print_table(count);
    if (fflush(stdout) == EOF || ferror(stdout))
        err(1, "the payment is made, but stdout");
}

/* A file of the right size may be anybody's. */
static void check_records(size_t count)
{
    const int first_is_ours = is_ours(&records[0], 1);
    const int last_is_ours = is_ours(&records[count - 1], count);
    if (!first_is_ours || !last_is_ours)
        errx(1, "%s: not a database of ours", path);
    if (id <= count && !is_ours(&records[id - 1], id))
        errx(1, "%s: record %u is not ours", path, id);
}

static int is_ours(const struct record *record, size_t number)
{
    return record->id == number && strncmp(record->name, "User_", 5) == 0;
}

/* A payment is an addition in memory. Behind the last record the page goes on,
   but the file does not: what is paid there comes into no file. */
static void pay(void)
{
    double *balance = &records[id - 1].balance;
    const long long byte = (char *)balance - (char *)records;
    printf("paying %.2f to record %u, at byte %lld of %lld\n", bonus, id, byte,
           file_size());
    flush_stdout();  /* nothing is paid if nobody can be told */
    new_file = NULL; /* and from now on nothing is undone */
    filling = 0;

    *balance += bonus;

    double in_file = 0;
    const ssize_t got = pread(fd, &in_file, sizeof in_file, byte);
    if (got == -1) err(1, "%s: the payment is made, but pread", path);
    printf("now %.2f in memory, ", *balance);
    if (got < (ssize_t)sizeof in_file)
        puts("nothing in the file");
    else if (in_file == *balance)
        puts("the same in the file");
    else
        printf("%.2f in the file\n", in_file);
}

static void print_table(size_t count)
{
    if (count <= 10) {
        print_rows(0, count);
        return;
    }
    print_rows(0, 5);
    puts("       ...");
    print_rows(count - 5, count);
}

/* Others write to the file, too: a name may have no end, and be no text. */
static void print_rows(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        const struct record record = records[i];
        char name[sizeof record.name + 1] = "";
        for (size_t k = 0; k < sizeof record.name && record.name[k]; k++) {
            const unsigned char c = record.name[k];
            name[k] = isprint(c) ? c : '.';
        }
        printf("%10u  %-28s %14.2f\n", record.id, name, record.balance);
    }
}

/* Of several that come at once one creates the file, and all wait for its lock.
   Who had the lock may have removed the file: then open what is there now. */
static void open_database(void)
{
    int created;
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error, too */
    atexit(undo);
    catch_signals(end_by_signal);
    for (;;) {
        fd = open_or_create(&created);
        file_size(); /* which only a regular file has */
        if (flock(fd, LOCK_EX) == -1) err(1, "%s: flock", path);
        if (created) own(fd); /* if create() found it locked by another */
        if (has_its_name(fd)) break;
        new_file = NULL;
        close(fd);
    }

    struct record first;
    const ssize_t got = pread(fd, &first, sizeof first, 0);
    if (got == -1) err(1, "%s: pread", path);
    const int whole = got == sizeof first;
    const int was_killed = whole && memcmp(&first, &unfinished, got) == 0;
    if (got == 0 || was_killed) make_records();
}

static int open_or_create(int *created)
{
    *created = 0;
    for (;;) {
        int file = open(path, O_RDWR | O_NONBLOCK); /* waits at no FIFO */
        if (file != -1) return file;
        if (errno != ENOENT) err(1, "%s", path);
        file = create();
        if (file != -1) {
            *created = 1;
            return file;
        }
        if (errno != EEXIST) err(1, "%s", path);
        /* Somebody was faster: open that. */
    }
}

/* A signal waits until the file is known to be ours. */
static int create(void)
{
    struct stat status;
    sigset_t all, before;
    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        errx(1, "%s: a link to nowhere", path);
    if (id > new_count && !unchecked) errx(1, "%s: no record %u", path, id);

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file != -1) own(file);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return file;
}

/* A new file is ours to remove, but not if another was the first to lock it:
   that one may have filled it, and have paid. */
static void own(int file)
{
    struct stat status;
    if (flock(file, LOCK_EX | LOCK_NB) == -1) return;
    if (fstat(file, &status) == -1) return;
    if (status.st_size == 0) {
        fd = file;
        new_file = path;
    }
}

static int has_its_name(int file)
{
    struct stat opened, named;
    if (fstat(file, &opened) == -1) return 0;
    if (stat(path, &named) == -1) return 0;
    return opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* Their space is reserved: a full disk is an error here, and not SIGBUS later.
   The first record comes last, in one piece: with it the file is complete. */
static void make_records(void)
{
    if (id > new_count && !unchecked) errx(1, "%s: no record %u", path, id);
    const size_t size = new_count * sizeof(struct record);
    filling = 1;
    if (ftruncate(fd, 0) == -1) err(1, "%s: ftruncate", path);
    write_first(&unfinished);
    errno = posix_fallocate(fd, 0, size);
    if (errno != 0) err(1, "%s", path);

    records = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (records == MAP_FAILED) err(1, "%s: mmap", path);
    for (size_t i = 1; i < new_count; i++) set_record(&records[i], i + 1);
    if (munmap(records, size) == -1) err(1, "%s: munmap", path);

    struct record first;
    set_record(&first, 1);
    write_first(&first);
}

static void set_record(struct record *record, uint32_t number)
{
    memset(record->name, 0, sizeof record->name);
    sprintf(record->name, "User_%u", number);
    record->id = number;
    record->balance = 100.0 * number;
}

static void write_first(const struct record *record)
{
    const ssize_t written = pwrite(fd, record, sizeof *record, 0);
    if (written == -1) err(1, "%s", path);
    if (written < (ssize_t)sizeof *record) errx(1, "%s: cut short", path);
}

/* Nobody was paid: a new file goes, and an old one is as empty as before. */
static void undo(void)
{
    if (new_file) {
        if (has_its_name(fd)) unlink(new_file);
    } else if (filling) {
        if (ftruncate(fd, 0) == -1) return; /* the next run can use it */
    }
}

static void end_by_signal(int number)
{
    undo();
    raise(number);
}

/* Returning runs the instruction again, and because of SA_RESETHAND it then
   kills. The fault is never inside of printf(), so stdio works here. */
static void explain_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    const long long byte = (char *)info->si_addr - (char *)records;
    const char *rule;
    if (number == SIGBUS && byte >= file_size())
        rule = "SIGBUS, beyond the end of the file";
    else if (number == SIGBUS)
        rule = "SIGBUS, the disk is full, or fails";
    else if (info->si_code == SEGV_ACCERR)
        rule = "SIGSEGV, protection forbids it";
    else
        rule = "SIGSEGV, nothing is mapped there";
    fprintf(stderr, "binary: %s: byte %lld of %lld\n", rule, byte, file_size());
}

static void explain_faults(void)
{
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

static long long file_size(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    return status.st_size;
}

/* The rest is alike in every program: options, and streams that are checked. */

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

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

static double parse_amount(const char *text)
{
    char *end;
    const double amount = strtod(text, &end);
    if (end == text || *end != '\0') errx(2, "%s: not an amount", text);
    const int small = amount > -1e9 && amount < 1e9; /* NAN is neither */
    if (!small) errx(2, "%s: not an amount below 1e9", text);
    return amount;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"records", 1, NULL, 'r'},
                                     {"unchecked", 0, &unchecked, 1},
                                     {NULL, 0, NULL, 0}};
    const long long addressable = PTRDIFF_MAX / sizeof(struct record);
    const long long most = addressable < UINT32_MAX ? addressable : UINT32_MAX;
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'r': new_count = parse_number(optarg, 1, most); break;
        case '?': exit(2);
        }

    argc -= optind;
    argv += optind;
    if (argc != 1 && argc != 3) errx(2, "want FILE [ID BONUS]; try --help");
    path = argv[0];
    if (argc == 3) {
        id = parse_number(argv[1], 1, most);
        bonus = parse_amount(argv[2]);
    }
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

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
