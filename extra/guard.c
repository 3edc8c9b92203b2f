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
 *     ./guard pages
 *     ./guard matrix
 * mmap(2) and mprotect(2) say what each PROT flag allows.
 */
#define _GNU_SOURCE
#include <err.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Shared with every child, which leaves the fault here that it ran into. */
static siginfo_t *fault;
static long page_size;

static void usage(void)
{
    puts("usage: guard [matrix|pages|lifetime|code]\n"
         "Try accesses in child processes, and tell how each ends. Tables:\n"
         "  matrix    each protection: may it be read, written, executed?\n"
         "  pages     a buffer between two pages that nobody may touch\n"
         "  lifetime  a page made read-only, writable again, and unmapped\n"
         "  code      machine code called before and after PROT_EXEC\n"
         "example: guard pages; without an argument, all four tables");
}

/* At that address if it is free; NULL leaves the choice to the kernel. */
static void *map(char *address, long length, int prot, int sharing)
{
    const int flags = sharing | MAP_ANONYMOUS;
    void *page = mmap(address, length, prot, flags, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap of %ld bytes", length);
    return page;
}

/* Where code has a cache of its own, that must learn of what was written. */
static char *map_code(void)
{
    char *page = map(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    memcpy(page, code, sizeof code);
    __builtin___clear_cache(page, page + sizeof code);
    return page;
}

/* C casts no data to a function, but copies the bytes of a pointer. */
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
    (void)signal, (void)context;
    *fault = *info;
    _exit(0);
}

/* A child has a copy of all private memory, protected alike: it may write or
   die, and the next child finds the page as the parent left it. */
static const char *outcome(char access, char *at)
{
    const struct sigaction action = {.sa_sigaction = report_fault,
                                     .sa_flags = SA_SIGINFO};
    static char works[32];
    int status;
    if (access == 'x' && !have_code) return "no code for it";
    fault->si_code = 0;
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        sigaction(SIGSEGV, &action, NULL);
        _exit(perform(access, at));
    }
    if (waitpid(child, &status, 0) == -1) err(1, "child %d", child);
    if (!WIFEXITED(status)) errx(1, "child %d: killed", child);
    if (fault->si_code == SEGV_MAPERR) return "SIGSEGV, nothing mapped";
    if (fault->si_code != 0) return "SIGSEGV, forbidden";
    sprintf(works, access == 'w' ? "works" : "works: %d", WEXITSTATUS(status));
    return works;
}

static void matrix(void)
{
    const char *const rows[] = {"---", "r--", "-w-", "--x",
                                "rw-", "r-x", "-wx", "rwx"};
    puts("matrix: what a page of each protection lets a child do\n"
         "PROT read                write               execute             "
         "the manual");
    for (int i = 0; i < 8; i++) {
        const int prot = (strchr(rows[i], 'r') ? PROT_READ : PROT_NONE) |
                         (strchr(rows[i], 'w') ? PROT_WRITE : PROT_NONE) |
                         (strchr(rows[i], 'x') ? PROT_EXEC : PROT_NONE);
        char *page = map_code();
        if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");
        printf("%-5s", rows[i]);
        for (int j = 0; j < 3; j++) {
            const char *ending = outcome("rwx"[j], page);
            const char surprise = rows[i][j] == '-' ? 'w' : 'S';
            printf("%-18.*s%c ", (int)strcspn(ending, ":"), ending,
                   *ending == surprise ? '*' : ' ');
        }
        puts(rows[i]);
    }
    puts("* mmap(2) leaves it to the machine what a flag implies: x86 has no "
         "page\n  only to write nor, without protection keys, only to execute");
}

/* Only whole pages can be guarded. Most errors are overruns, so a buffer is
   laid against the end of its page: there a single byte too many is caught. */
static void pages(void)
{
    const int prot = PROT_READ | PROT_WRITE;
    char *guard = map(NULL, 3 * page_size, PROT_NONE, MAP_PRIVATE);
    char *page = guard + page_size;
    if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");
    const char *const rows[] = {"one under", "first", "last", "one over"};
    const long size[] = {100, 100, page_size};
    const long start[] = {0, page_size - 100, 0};
    puts("pages: a buffer in a page, between two pages of PROT_NONE\n"
         "write byte  100 at its start    100 at its end      all of the page");
    for (int i = 0; i < 4; i++) {
        printf("%-10s", rows[i]);
        for (int j = 0; j < 3; j++) {
            const long byte[] = {-1, 0, size[j] - 1, size[j]};
            char *at = page + start[j] + byte[i];
            printf(j < 2 ? "  %-18s" : "  %s\n", outcome('w', at));
        }
    }
}

static void row(const char *state, char access, char *page)
{
    printf("%-30s%-25s", state, outcome(access, page));
    puts(outcome('w', page));
}

static void lifetime(void)
{
    const int prot = PROT_READ | PROT_WRITE;
    char *page = map(NULL, page_size, prot, MAP_PRIVATE);
    *page = 42;
    puts("lifetime: one pointer, and what becomes of the page behind it\n"
         "after                         read                     write");
    row("mmap, PROT_READ | PROT_WRITE", 'r', page);
    if (mprotect(page, page_size, PROT_READ) == -1) err(1, "mprotect");
    row("mprotect, PROT_READ", 'r', page);
    if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");
    row("mprotect, both again", 'r', page);
    munmap(page, page_size);
    row("munmap", 'r', page);
    /* Worse than a crash: the old pointer leads to somebody else's memory. */
    map(page, page_size, prot, MAP_PRIVATE);
    row("another mmap, the same place", 'r', page);
}

static void call_code(void)
{
    char *page = map_code();
    puts("code: a function that returns 42, written to a page as bytes\n"
         "protection                    call                     write");
    row("PROT_READ | PROT_WRITE", 'x', page);
    const int prot = PROT_READ | PROT_EXEC;
    if (mprotect(page, page_size, prot) == -1) err(1, "mprotect");
    row("PROT_READ | PROT_EXEC", 'x', page);
    if (!have_code) puts("guard has no code for this machine");
}

int main(int argc, char *argv[])
{
    const char *const names[] = {"matrix", "pages", "lifetime", "code", "help"};
    void (*const tables[])(void) = {matrix, pages, lifetime, call_code, usage};
    const struct option options[] = {{"help", 0, NULL, 'h'}, {0}};
    const int option = getopt_long_only(argc, argv, "", options, NULL);
    if (option == '?') return 2;
    if (argc > optind + 1) errx(2, "want one table, or all; try --help");
    const char *only = option == 'h' ? "help" : argv[optind];

    signal(SIGCHLD, SIG_DFL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    page_size = sysconf(_SC_PAGESIZE);
    fault = map(NULL, sizeof *fault, PROT_READ | PROT_WRITE, MAP_SHARED);
    int shown = 0;
    for (int i = 0; i < (only ? 5 : 4); i++) {
        if (only && strcmp(only, names[i]) != 0) continue;
        if (shown++) puts("");
        tables[i]();
    }
    if (!shown) errx(2, "%s: no such table; try --help", only);
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
