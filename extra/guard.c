/* SPDX-License-Identifier: MIT */
/*
 * guard: what the protection of a page forbids, tried by child processes.
 *
 *         PROT_NONE         PROT_READ | PROT_WRITE         PROT_NONE
 *     +---------------+-----------------------------+---------------+
 *     |               |                 [ buffer   ]|               |
 *     +---------------+-----------------------------+---------------+
 *          one byte under: unnoticed --^             ^-- one byte over: SIGSEGV
 *
 *     ./extra/guard pages
 *     ./extra/guard hole
 *
 * mmap(2), mprotect(2) and munmap(2); sigaction(2) explains si_code.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* To experiment, change these lines. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_PRIVATE | MAP_ANONYMOUS;

/* How an access ended, and what was read or returned if it worked. */
struct outcome {
    enum { WORKS, NOT_MAPPED, FORBIDDEN, NO_CODE } ending;
    int value;
};

static const char *only; /* the one table that is wanted, or NULL */
static long page_size;
static siginfo_t *fault; /* where a child leaves what it died of */

static void pages(void);
static void lifetime(void);
static void matrix(void);
static void call_code(void);
static void hole(void);
static struct outcome attempt(char access, char *at);
static const char *in_words(struct outcome outcome);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

static const struct table {
    const char *name;
    void (*show)(void);
} tables[] = {{"matrix", matrix},
              {"pages", pages},
              {"lifetime", lifetime},
              {"code", call_code},
              {"hole", hole}};
enum { TABLES = sizeof tables / sizeof *tables };

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    signal(SIGCHLD, SIG_DFL); /* ignored, no child could be waited for */
    page_size = sysconf(_SC_PAGESIZE);

    const int shared = MAP_SHARED | MAP_ANONYMOUS;
    fault = mmap(NULL, sizeof *fault, PROT_READ | PROT_WRITE, shared, -1, 0);
    if (fault == MAP_FAILED) err(1, "mmap");

    for (int i = 0; i < TABLES; i++) {
        if (only && strcmp(only, tables[i].name) != 0) continue;
        tables[i].show();
        if (!only && i < TABLES - 1) puts("");
    }
    flush_stdout();
}

/* Only whole pages can be guarded. Most errors are overruns, so a buffer is
   laid against the end of its page: there a single byte too many is caught. */
static void pages(void)
{
    char *guard = mmap(NULL, 3 * page_size, PROT_NONE, flags, -1, 0);
    if (guard == MAP_FAILED) err(1, "mmap of 3 pages");
    char *page = guard + page_size;
    if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");

    const long size[] = {100, 100, page_size};
    const long start[] = {0, page_size - 100, 0};
    const char *const rows[] = {"one under", "first", "last", "one over"};
    puts("pages: a buffer in a page, between two pages of PROT_NONE\n"
         "write byte  100 at its start    100 at its end      all of the page");
    for (int i = 0; i < 4; i++) {
        printf("%-10s", rows[i]);
        for (int j = 0; j < 3; j++) {
            char *buffer = page + start[j];
            const long byte[] = {-1, 0, size[j] - 1, size[j]};
            struct outcome store = attempt('w', buffer + byte[i]);
            const int width = j < 2 ? 18 : 0; /* no blanks at the end */
            printf("  %-*s", width, in_words(store));
        }
        puts("");
    }
}

/* A line of a table: in this state of the page, an access, and then a store. */
static void row(const char *state, char access, char *page)
{
    struct outcome first = attempt(access, page);
    struct outcome store = attempt('w', page);
    printf("%-30s", state);
    if (first.ending == WORKS) printf("works: %-18d", first.value);
    if (first.ending != WORKS) printf("%-25s", in_words(first));
    puts(in_words(store));
}

static void lifetime(void)
{
    char *page = mmap(NULL, page_size, prot, flags, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    puts("lifetime: one pointer, and what becomes of the page behind it\n"
         "after                         read                     write");
    *page = 42;
    row("mmap, PROT_READ | PROT_WRITE", 'r', page);
    if (mprotect(page, page_size, PROT_READ) == -1) err(1, "mprotect");
    row("mprotect, PROT_READ", 'r', page);
    if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");
    row("mprotect, both again", 'r', page);
    if (munmap(page, page_size) == -1) err(1, "munmap");
    row("munmap", 'r', page);

    /* Worse than a crash: the old pointer leads to somebody else's memory. */
    char *other = mmap(page, page_size, prot, flags | MAP_FIXED, -1, 0);
    if (other == MAP_FAILED) err(1, "mmap");
    row("another mmap, the same place", 'r', page);
}

/* A function that returns 42, in this machine's own language. */
static const char code[] =
#if defined __x86_64__ || defined __i386__
    "\xb8\x2a\0\0\0\xc3"; /* mov $42, %eax; ret */
#elif defined __aarch64__
    "\x40\x05\x80\x52\xc0\x03\x5f\xd6"; /* mov w0, #42; ret */
#else
    "";
#endif
enum { have_code = sizeof code > 1 };

static char *map_code(void)
{
    char *page = mmap(NULL, page_size, prot, flags, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    memcpy(page, code, sizeof code);
    /* Some processors have a cache for code, which must be told. */
    __builtin___clear_cache(page, page + sizeof code);
    return page;
}

static int parse_prot(const char *letters)
{
    int allowed = PROT_NONE;
    if (strchr(letters, 'r')) allowed |= PROT_READ;
    if (strchr(letters, 'w')) allowed |= PROT_WRITE;
    if (strchr(letters, 'x')) allowed |= PROT_EXEC;
    return allowed;
}

static void matrix(void)
{
    const char *const rows[] = {"---", "r--", "-w-", "--x",
                                "rw-", "r-x", "-wx", "rwx"};
    puts("matrix: what a page of each protection lets a child do\n"
         "PROT read                write               execute             "
         "the manual");
    for (int i = 0; i < 8; i++) {
        char *page = map_code();
        if (mprotect(page, page_size, parse_prot(rows[i])) == -1)
            err(1, "mprotect to %s", rows[i]);
        printf("%-5s", rows[i]);
        for (int j = 0; j < 3; j++) {
            const char access = "rwx"[j];
            struct outcome outcome = attempt(access, page);
            const int promised = rows[i][j] != '-';
            const int works = outcome.ending == WORKS;
            const int surprise = works != promised && outcome.ending != NO_CODE;
            printf("%-18s%c ", in_words(outcome), surprise ? '*' : ' ');
        }
        puts(rows[i]);
    }
    puts("* mmap(2) leaves it to the machine what a flag implies: x86 has no "
         "page\n  only to write nor, without protection keys, only to execute");
}

static void call_code(void)
{
    char *page = map_code();
    puts("code: a function that returns 42, written to a page as bytes\n"
         "protection                    call                     write");
    row("PROT_READ | PROT_WRITE", 'x', page);
    if (mprotect(page, page_size, PROT_READ | PROT_EXEC) == -1)
        err(1, "mprotect");
    row("PROT_READ | PROT_EXEC", 'x', page);
    if (!have_code) puts("guard has no code for this machine");
}

/* Opened before there is a hole: it takes memory, which could lie there. */
static FILE *maps;

/* What /proc/self/maps says of five pages, one after another, and how many
   mappings they are. */
static void print_pages(const char *first)
{
    char rights[5][5] = {"-", "-", "-", "-", "-"};
    int mappings = 0;
    rewind(maps);
    char line[4200], of_mapping[5];
    unsigned long start, end;
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %4s", &start, &end, of_mapping) != 3)
            continue;
        int inside = 0;
        for (int i = 0; i < 5; i++) {
            const unsigned long page = (unsigned long)first + i * page_size;
            if (page < start || page >= end) continue;
            strcpy(rights[i], of_mapping);
            inside = 1;
        }
        mappings += inside;
    }
    if (ferror(maps)) err(1, "/proc/self/maps");
    for (int i = 0; i < 5; i++) printf(" %4s", rights[i]);
    printf("  %8d\n", mappings);
}

static void hole_row(const char *call, int returned, const char *first)
{
    const char *result = "works";
    if (returned == -1) result = strerror(errno);
    if (returned == -1 && errno == EINVAL) result = "EINVAL";
    if (returned == -1 && errno == ENOMEM) result = "ENOMEM";
    printf("%-33s%-7s", call, result);
    print_pages(first);
}

/* The five pages lie between two of PROT_NONE: beside pages with the same
   protection they would be one mapping with them. */
static void hole(void)
{
    maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) err(1, "/proc/self/maps");
    char *guard = mmap(NULL, 7 * page_size, PROT_NONE, flags, -1, 0);
    if (guard == MAP_FAILED) err(1, "mmap of 7 pages");
    char *page[5];
    for (int i = 0; i < 5; i++) page[i] = guard + (1 + i) * page_size;

    puts("hole: five pages, and calls with a length of one byte\n"
         "call                             result     0    1    2    3    4"
         "  mappings");
    int returned = mprotect(page[0], 5 * page_size, prot);
    hole_row("mmap and mprotect of five pages", returned, page[0]);
    returned = munmap(page[2], 1);
    hole_row("munmap(page[2], 1)", returned, page[0]);
    returned = munmap(page[2], 1);
    hole_row("munmap(page[2], 1) again", returned, page[0]);
    returned = munmap(page[3] + 1, 1);
    hole_row("munmap(page[3] + 1, 1)", returned, page[0]);
    returned = mprotect(page[0], 1, PROT_READ);
    hole_row("mprotect(page[0], 1, PROT_READ)", returned, page[0]);
    returned = mprotect(page[2], 1, PROT_READ);
    hole_row("mprotect(page[2], 1, PROT_READ)", returned, page[0]);
    fclose(maps);
}

/* Reads, writes or executes at a place. C casts no pointer to data to one to a
   function, but copies its bytes. */
static int perform(char access, char *at)
{
    int (*function)(void);
    memcpy(&function, &at, sizeof function);
    if (access == 'x') return function();
    if (access == 'w') *(volatile char *)at = 'X';
    return *(volatile char *)at;
}

static void report_fault(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    *fault = *info;
    _exit(0);
}

/* In a child, for it has a copy of all private memory, protected alike: it may
   write or die, and the next child finds the page as the parent left it. */
static struct outcome attempt(char access, char *at)
{
    const struct sigaction action = {.sa_sigaction = report_fault,
                                     .sa_flags = SA_SIGINFO};
    if (access == 'x' && !have_code) return (struct outcome){.ending = NO_CODE};
    fault->si_code = 0;
    flush_stdout(); /* or the child would have the same lines to print */
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        sigaction(SIGSEGV, &action, NULL);
        const int value = perform(access, at);
        _exit(value);
    }

    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "child %d", child);
    if (WIFSIGNALED(status))
        errx(1, "child %d: %s", child, strsignal(WTERMSIG(status)));
    struct outcome outcome = {.ending = WORKS, .value = WEXITSTATUS(status)};
    if (fault->si_code == SEGV_MAPERR)
        outcome.ending = NOT_MAPPED;
    else if (fault->si_code != 0)
        outcome.ending = FORBIDDEN;
    return outcome;
}

static const char *in_words(struct outcome outcome)
{
    switch (outcome.ending) {
    case WORKS: return "works";
    case NOT_MAPPED: return "SIGSEGV, nothing mapped";
    case FORBIDDEN: return "SIGSEGV, forbidden";
    case NO_CODE: break;
    }
    return "no code for it";
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: guard [matrix|pages|lifetime|code|hole]\n"
         "Try accesses in child processes, and tell how each ends. Tables:\n"
         "  matrix    each protection: may it be read, written, executed?\n"
         "  pages     a buffer between two pages that nobody may touch\n"
         "  lifetime  a page made read-only, writable again, and unmapped\n"
         "  code      machine code called before and after PROT_EXEC\n"
         "  hole      one byte unmapped, or protected, in the midst of pages\n"
         "example: guard pages; without an argument, all five tables");
    flush_stdout();
    exit(0);
}

static int is_table(const char *name)
{
    for (int i = 0; i < TABLES; i++)
        if (strcmp(name, tables[i].name) == 0) return 1;
    return 0;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case '?': exit(2);
        }
    if (argc > optind + 1) errx(2, "want one table, or all; try --help");
    only = argv[optind];
    if (only && !is_table(only)) errx(2, "%s: no such table; try --help", only);
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
