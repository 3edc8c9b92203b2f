/* SPDX-License-Identifier: MIT */
/*
 * persist: a variable that outlives the program, by MAP_FIXED.
 *
 *     memory before   | code | data |   text   | more data |
 *     memory after    | code | data | the file | more data |
 *
 *     echo hi | ./persist -write
 *     ./persist -read
 *     ./persist -clobber
 *
 * mmap(2), which calls MAP_FIXED dangerous; flock(2)
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
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ, WRITE, NOREPLACE, CLOBBER };
enum { LARGEST_PAGE = 65536 }; /* bytes, on x86 and ARM; often only 4096 */

/* MAP_FIXED replaces whole pages, so this variable fills whole pages. */
static _Alignas(LARGEST_PAGE) char text[LARGEST_PAGE] = "the initial value";

/* And this one has neighbours in its page. */
static _Alignas(LARGEST_PAGE) struct {
    char variable[32], neighbour[32], rest[LARGEST_PAGE - 64];
} crowded = {"I am mapped over", "I only live next door", ""};

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts("usage: persist [-read | -write | -noreplace | -clobber] [-file=F]\n"
         "Keep a variable in F (.persistent_data).\n"
         "  -read       print the variable (default)\n"
         "  -write      set it to what comes from stdin\n"
         "  -noreplace  use MAP_FIXED_NOREPLACE, which replaces nothing\n"
         "  -clobber    map over a variable that has neighbours in its page\n"
         "example: echo hi | persist -write && persist");
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

/* The whole of stdin, before anything is changed. */
static void read_input(char input[LARGEST_PAGE])
{
    size_t length = fread(input, 1, LARGEST_PAGE, stdin);
    if (ferror(stdin)) err(1, "stdin");
    if (length == LARGEST_PAGE) errx(1, "stdin: longer than the variable");
    if (memchr(input, '\0', length)) errx(1, "stdin: holds a NUL byte");
}

static int open_locked(const char *path, int writing)
{
    const int access = writing ? O_RDWR : O_RDONLY;
    const int creation = writing ? O_CREAT | O_EXCL : 0;
    struct stat status;
    int fd = open(path, access | creation | O_CLOEXEC | O_NONBLOCK, 0600);
    const int created = creation && fd != -1;
    if (fd == -1 && errno == EEXIST)
        fd = open(path, access | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1 || flock(fd, writing ? LOCK_EX : LOCK_SH) == -1 ||
        fstat(fd, &status) == -1)
        err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    if (status.st_size == sizeof text) return fd;
    if (!writing || status.st_size != 0)
        errx(1, "%s: not a file of %zu bytes", path, sizeof text);

    signal(SIGXFSZ, SIG_IGN);
    errno = posix_fallocate(fd, 0, sizeof text);
    if (errno == 0) return fd;
    if (ftruncate(fd, 0) == 0 && created) unlink(path);
    err(1, "%s", path);
}

static void clobber(int prot)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    printf("before: \"%s\", \"%s\"\n", crowded.variable, crowded.neighbour);
    void *address =
        mmap(crowded.variable, sizeof crowded.variable, prot, flags, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap");
    printf("after:  \"%s\", \"%s\"\n", crowded.variable, crowded.neighbour);
    printf("asked to map %zu bytes, mmap() has replaced a page of %ld\n",
           sizeof crowded.variable, sysconf(_SC_PAGESIZE));
}

int main(int argc, char *argv[])
{
    int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_SHARED | MAP_FIXED;
    int mode = READ, fd = -1, option;
    const char *path = ".persistent_data";
    static char input[LARGEST_PAGE];
    const struct option options[] = {{"clobber", 0, &mode, CLOBBER},
                                     {"file", 1, NULL, 'f'},
                                     {"help", 0, NULL, 'h'},
                                     {"noreplace", 0, &mode, NOREPLACE},
                                     {"read", 0, &mode, READ},
                                     {"write", 0, &mode, WRITE},
                                     {NULL, 0, NULL, 0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'f') path = optarg;
        if (option == 'h') usage();
        if (option == '?') return 2;
    }
    if (argc > optind) errx(2, "%s: not an option; try --help", argv[optind]);

    if (mode == WRITE && fcntl(STDIN_FILENO, F_GETFD) == -1) err(1, "stdin");
    guard_streams();
    if (mode == CLOBBER) {
        clobber(prot);
        flush_stdout();
        return 0;
    }
    if (mode == NOREPLACE)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    if (mode == READ) prot = PROT_READ;
    if (mode == WRITE) read_input(input);
    if (mode != NOREPLACE) fd = open_locked(path, mode == WRITE);
    errno = EEXIST; /* Linux before 4.17 does not say so, but maps elsewhere */
    if (mmap(text, sizeof text, prot, flags, fd, 0) != text)
        err(1, "mmap over the variable at %p", (void *)text);
    if (mode == WRITE) memcpy(text, input, sizeof text);
    if (mode == READ) fwrite(text, 1, strnlen(text, sizeof text), stdout);
    flush_stdout();
}
