/* SPDX-License-Identifier: MIT */
/*
 * frames: is it the same page of physical memory, or a copy?
 *
 *     parent            physical memory            child
 *     +------+          +-------------+          +------+
 *     | page |--------->| frame 5a2c1 |<---------| page |    Pss 2 kB each
 *     +------+          +-------------+          +------+
 *
 *     the child stores into a private page:
 *     +------+          +-------------+
 *     | page |--------->| frame 5a2c1 |                      Pss 4 kB each
 *     +------+          +-------------+          +------+
 *                       | frame 61b07 |<---------| page |    a copy
 *                       +-------------+          +------+
 *
 *     ./extra/frames
 *     ./extra/frames --megabytes=100
 *
 * mmap(2), fork(2); proc_pid_smaps(5) and proc_pid_pagemap(5) have the numbers.
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
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int megabytes; /* 0: one page; else what a fork of so many costs */
struct kind {
    const char *name;
    int flags;
};
static const struct kind of_a_page[] = {
    {"MAP_SHARED of a file", MAP_SHARED},
    {"MAP_PRIVATE of a file", MAP_PRIVATE},
    {"MAP_PRIVATE | MAP_ANONYMOUS", MAP_PRIVATE | MAP_ANONYMOUS},
    {NULL, 0},
};
static const struct kind of_megabytes[] = {
    {"MAP_PRIVATE | MAP_ANONYMOUS", MAP_PRIVATE | MAP_ANONYMOUS},
    {"MAP_SHARED | MAP_ANONYMOUS", MAP_SHARED | MAP_ANONYMOUS},
    {NULL, 0},
};

/* What a process has of the mapping, in kB, and the frame of its first page. */
struct memory {
    long rss, pss, dirty;
    uint64_t frame;
};
enum { NO_FRAME, HIDDEN_FRAME }; /* instead of 0 and 1, never frames of ours */

/* What the child shall do. When it is done, the child sends the order back. */
struct order {
    size_t access, bytes;
};
enum { READ, STORE };

static char *at; /* the mapping */
static size_t length, page_size;
static pid_t child; /* 0: there is none */
static int channel; /* to the other process */
static int hidden;  /* only root sees the numbers of frames */

static void show_page(int flags);
static void show_fork(int flags);
static char touch(size_t access, size_t bytes);
static void start_child(void);
static void obey(void);
static void let_child(size_t access, size_t bytes);
static void end_child(void);
static int new_file(void);
static void keep_apart(void);
static void print_head(void);
static void report(const char *step);
static struct memory look(pid_t pid);
static uint64_t frame_of(pid_t pid);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    signal(SIGCHLD, SIG_DFL); /* ignored, it would take away the status */
    page_size = sysconf(_SC_PAGESIZE);
    length = megabytes ? (size_t)megabytes << 20 : page_size;
    print_head();

    const struct kind *kind = megabytes ? of_megabytes : of_a_page;
    for (; kind->name != NULL; kind++) {
        const int fd = kind->flags & MAP_ANONYMOUS ? -1 : new_file();
        at = mmap(NULL, length, prot, kind->flags, fd, 0);
        if (at == MAP_FAILED) err(1, "mmap of %zu bytes", length);
        keep_apart();

        puts(kind->name);
        if (megabytes)
            show_fork(kind->flags);
        else
            show_page(kind->flags);
        /* A single page is kept: else the next one could get its frame. */
        if (!megabytes) continue;
        if (munmap(at, length) == -1) err(1, "munmap");
    }
    if (hidden && !megabytes)
        puts("?: only root sees the numbers of the frames");
    flush_stdout();
}

/* Into a private mapping of a file the parent must not store first: it would
   have a copy before there is a child. */
static void show_page(int flags)
{
    const int reads = flags == MAP_PRIVATE;
    touch(reads ? READ : STORE, length);
    report(reads ? "parent reads" : "parent stores");
    start_child();
    report("fork");
    let_child(READ, length);
    report("child reads");
    let_child(STORE, length);
    report("child stores");
    touch(STORE, length);
    report("parent stores");
    end_child();
}

static void show_fork(int flags)
{
    touch(STORE, length);
    report("parent stores");
    start_child();
    report("fork");
    if (flags & MAP_SHARED) {
        let_child(READ, length);
        report("child reads");
    }
    let_child(STORE, length / 2);
    report("child stores half");
    end_child();
    report("child ends");
}

/* What was read is returned, or the reading might be left out. */
static char touch(size_t access, size_t bytes)
{
    volatile char *byte = at;
    char last = 0;
    for (size_t i = 0; i < bytes; i += page_size) {
        if (access == STORE) byte[i] = 'X';
        if (access == READ) last = byte[i];
    }
    return last;
}

static void start_child(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == -1)
        err(1, "socketpair");
    flush_stdout(); /* or the child would have a copy of what is not written */
    child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        close(ends[0]); /* else it would not see the end of the parent */
        channel = ends[1];
        obey();
    }
    close(ends[1]);
    channel = ends[0];
}

/* The child's life: without the parent it ends. */
static void obey(void)
{
    struct order order;
    for (;;) {
        const ssize_t got = recv(channel, &order, sizeof order, 0);
        if (got == 0) _exit(0);
        if (got == -1) err(1, "order");
        touch(order.access, order.bytes);
        const ssize_t sent = send(channel, &order, sizeof order, MSG_NOSIGNAL);
        if (sent == -1) err(1, "answer");
    }
}

static void let_child(size_t access, size_t bytes)
{
    struct order order = {access, bytes};
    ssize_t done = send(channel, &order, sizeof order, MSG_NOSIGNAL);
    if (done != -1) done = recv(channel, &order, sizeof order, 0);
    if (done == sizeof order) return;

    const char *reason = strerror(errno);
    end_child(); /* does not return if it has failed or was killed */
    errx(1, "child: %s", reason);
}

static void end_child(void)
{
    int status;
    shutdown(channel, SHUT_RDWR); /* the child receives the end */
    close(channel);
    if (waitpid(child, &status, 0) == -1) err(1, "child %d", child);
    if (WIFSIGNALED(status))
        errx(1, "child %d: %s", child, strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) != 0) exit(1);
    child = 0;
}

/* A file without a name: nothing is left of it. */
static int new_file(void)
{
    const int fd = memfd_create("frames", 0);
    if (fd == -1) err(1, "memfd_create");
    if (ftruncate(fd, length) == -1) err(1, "ftruncate");
    return fd;
}

/* Small pages, in a mapping of their own: neighbours that are alike would be
   merged with it, and counted. MADV_DONTDUMP makes it unlike them. */
static void keep_apart(void)
{
    madvise(at, length, MADV_NOHUGEPAGE); /* fails where there are none */
    if (madvise(at, length, MADV_DONTDUMP) == -1) err(1, "madvise");
}

static void print_head(void)
{
    if (megabytes)
        puts("MB                   parent           child            both\n"
             "                     Rss  Pss dirty   Rss  Pss dirty      Pss");
    else
        puts("kB               parent                    child\n"
             "                 Rss  Pss dirty    frame   "
             "Rss  Pss dirty    frame");
}

static void print_memory(const struct memory *has)
{
    const long unit = megabytes ? 1024 : 1;
    printf("%6ld%5ld%6ld", has->rss / unit, has->pss / unit, has->dirty / unit);
    if (megabytes) return;
    if (has->frame == NO_FRAME)
        printf("%9s", "-");
    else if (has->frame == HIDDEN_FRAME)
        printf("%9s", "?");
    else
        printf("%9jx", (uintmax_t)has->frame);
}

/* Pss counts a page of two processes as half a page in each, Rss as a page. */
static void report(const char *step)
{
    struct memory parent = look(getpid()), other = {0};
    printf("  %-*s", megabytes ? 17 : 13, step);
    print_memory(&parent);
    if (child != 0) {
        other = look(child);
        print_memory(&other);
    }
    if (megabytes)
        printf("%*ld", child ? 9 : 26, (parent.pss + other.pss) / 1024);
    else if (other.rss > 0)
        printf("  %s", other.pss < other.rss ? "same page" : "a copy");
    puts("");
}

/* The numbers of a mapping follow the line with its addresses. Where the line
   is another one, sscanf() leaves the number as it is. */
static struct memory look(pid_t pid)
{
    struct memory has = {0};
    const unsigned long address = (unsigned long)at;
    char path[64], line[4096];
    int here = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps", pid);
    FILE *smaps = fopen(path, "r");
    if (smaps == NULL) err(1, "%s", path);
    while (fgets(line, sizeof line, smaps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = from <= address && address < to;
        if (!here) continue;
        sscanf(line, "Rss: %ld", &has.rss);
        sscanf(line, "Pss: %ld", &has.pss);
        sscanf(line, "Private_Dirty: %ld", &has.dirty);
    }
    if (ferror(smaps)) err(1, "%s", path);
    fclose(smaps);
    has.frame = frame_of(pid);
    return has;
}

/* 64 bits for each page: bit 63 says that it is in memory, the lowest 55 are
   the number of its frame, or 0 for those who may not know it. */
static uint64_t frame_of(pid_t pid)
{
    uint64_t entry;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
    const int fd = open(path, O_RDONLY);
    if (fd == -1) err(1, "%s", path);
    const off_t place = (uintptr_t)at / page_size * sizeof entry;
    const ssize_t got = pread(fd, &entry, sizeof entry, place);
    if (got == -1) err(1, "%s", path);
    if (got != sizeof entry) errx(1, "%s: too short", path);
    close(fd);
    if (entry >> 63 == 0) return NO_FRAME;
    entry &= ((uint64_t)1 << 55) - 1;
    if (entry != 0) return entry;
    hidden = 1;
    return HIDDEN_FRAME;
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts(
        "usage: frames [--megabytes=N]\n"
        "Show what parent and child have of a page, before and after fork and\n"
        "store: the same frame of physical memory, or a copy of their own.\n"
        "  --megabytes=N   what a fork costs a process of 2 to 1000 megabytes\n"
        "example: frames --megabytes=100");
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
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"megabytes", 1, NULL, 'm'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'm': megabytes = parse_number(optarg, 2, 1000); break;
        case '?': exit(2);
        }
    if (argc != optind) errx(2, "%s: want no file; try --help", argv[optind]);
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
