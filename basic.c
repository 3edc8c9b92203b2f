/* SPDX-License-Identifier: MIT */
/*
 * basic: map a file into memory and edit it there, without write().
 *
 *     this process                  the page cache, in the kernel
 *     +--------------------+        +--------------------+
 *     | I just love.sharin | <----> | I just love.sharin | <----> disk
 *     +--------------------+        +--------------------+
 *     MAP_SHARED: the same page, seen by every process that maps the file
 *     MAP_PRIVATE: the first write to a page gives the process its own copy
 *     ./basic /tmp/poem.txt
 *     ./basic --length=8192 --read=4096 /tmp/poem.txt
 * mmap(2); proc_pid_maps(5) explains the lines that say what lies where.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The open file, and where its byte 0 would be in memory. */
static const char *path;
static int fd;
static uintptr_t byte_0;

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts("usage: basic [OPTION]... FILE [OLD NEW]\n"
         "Map FILE, show it, replace OLD (memories) by NEW (MEMORIES).\n"
         "  --private            use MAP_PRIVATE: the file keeps its text\n"
         "  --prot=rwx|none      allow only these accesses\n"
         "  --offset=N           begin at byte N of the file, any byte\n"
         "  --length=N           map N bytes, even beyond the end\n"
         "  --string             show the text with printf(\"%s\")\n"
         "  --read=N, --write=N  only touch byte N of the file, there or not\n"
         "  --pause              wait for Enter before the first access\n"
         "  --cat                write the bytes to stdout, nothing else\n"
         "example: basic --length=8192 --read=4096 /tmp/poem.txt");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

static long long parse_bytes(const char *text)
{
    char *end;
    long long number = strtoll(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || number > PTRDIFF_MAX / 2)
        errx(2, "%s: not a number of bytes", text);
    return number;
}

static int parse_prot(const char *letters)
{
    if (letters[strspn(letters, "rwx")] && strcmp(letters, "none") != 0)
        errx(2, "%s: not letters of rwx, nor none", letters);
    return (strchr(letters, 'r') ? PROT_READ : 0) |
           (strchr(letters, 'w') ? PROT_WRITE : 0) |
           (strchr(letters, 'x') ? PROT_EXEC : 0);
}

static long long file_size(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1 || !S_ISREG(status.st_mode))
        errx(1, "%s: not a regular file", path);
    return status.st_size;
}

/* Which byte of the file belongs there, and what mapping is there. */
static void locate(FILE *stream, void *at)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4096];
    void *from, *to;
    fprintf(stream, "byte %ld of %lld, at %p\n", (long)((uintptr_t)at - byte_0),
            file_size(), at);
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%p-%p", &from, &to) == 2 && from <= at && at < to)
            fprintf(stream, "  in %.*s %s", (int)strcspn(line, " ") + 5, line,
                    strpbrk(line, "/[") ? strpbrk(line, "/[") : "no file\n");
    if (maps) fclose(maps);
}

/* The fault is never inside malloc(), so stdio works here. Returning runs the
   instruction again; because of SA_RESETHAND it then kills. */
static void explain_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    const char *rule = "SIGSEGV, nothing is mapped there";
    if (info->si_code == SEGV_ACCERR) rule = "SIGSEGV, protection forbids it";
    if (signal == SIGBUS) rule = "SIGBUS, beyond the end of the file";
    fprintf(stderr, "basic: %s: ", rule);
    locate(stderr, info->si_addr);
}

/* The bytes in hex beside the text, 16 a line; of a long text, 16 lines. */
static void dump(unsigned char *text, long long offset, long long length)
{
    for (long long row = 0; row < length && row < 256; row += 16) {
        char hex[3 * 16 + 1] = "", chars[16 + 1] = "";
        for (int i = 0; i < 16 && row + i < length; i++) {
            sprintf(hex + 3 * i, "%02x ", text[row + i]);
            chars[i] = isprint(text[row + i]) ? text[row + i] : '.';
        }
        printf("%8lld  %-48s |%s|\n", offset + row, hex, chars);
    }
}

static void touch(long long byte, int writing)
{
    volatile unsigned char *address = (void *)(byte_0 + (uintptr_t)byte);
    locate(stdout, (void *)address);
    flush_stdout();
    if (writing) *address = 'X';
    printf("it is %d; the file has %lld bytes\n", *address, file_size());
}

/* A plain write to memory; pread(2) then tells what the file holds. */
static void edit(char *text, size_t length, const char *old, const char *new)
{
    const int size = strlen(old);
    char *place = memmem(text, length, old, size), in_file[size];
    if (place == NULL) errx(1, "%s: '%s' not found", path, old);
    flush_stdout();
    memcpy(place, new, size);
    if (pread(fd, in_file, size, (uintptr_t)place - byte_0) != size)
        errx(1, "%s: truncated while mapped", path);
    printf("'%s' is now '%.*s' in memory, '%.*s' in the file\n", old, size,
           place, size, in_file);
}

int main(int argc, char *argv[])
{
    int prot = PROT_READ | PROT_WRITE;
    int flags = MAP_SHARED;
    int cat = 0, string = 0, pause = 0, writing = 0, option;
    long long offset = 0, length = -1, touched = -1;
    const struct option options[] = {
        {"cat", 0, &cat, 1},       {"private", 0, &flags, MAP_PRIVATE},
        {"string", 0, &string, 1}, {"pause", 0, &pause, 1},
        {"help", 0, NULL, 'h'},    {"prot", 1, NULL, 'p'},
        {"offset", 1, NULL, 'o'},  {"length", 1, NULL, 'l'},
        {"read", 1, NULL, 'r'},    {"write", 1, NULL, 'w'},
        {NULL, 0, NULL, 0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'p': prot = parse_prot(optarg); break;
        case 'o': offset = parse_bytes(optarg); break;
        case 'l': length = parse_bytes(optarg); break;
        case 'r':
        case 'w': touched = parse_bytes(optarg), writing = option == 'w'; break;
        case 'h': usage(); break;
        case '?': return 2;
        }
    argc -= optind, argv += optind;
    const char *old = argc == 3 ? argv[1] : "memories";
    const char *new = argc == 3 ? argv[2] : "MEMORIES";
    if ((argc != 1 && argc != 3) || !*old || strlen(old) != strlen(new))
        errx(2, "want FILE, or FILE OLD NEW of one length; try --help");

    guard_streams();
    path = argv[0];
    if (cat) prot = PROT_READ;
    int access = flags == MAP_SHARED && prot & PROT_WRITE ? O_RDWR : O_RDONLY;
    fd = open(path, access | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1) err(1, "%s", path);
    const long long rest = file_size() > offset ? file_size() - offset : 0;
    if (length == -1) length = rest;
    const long long in_file = length < rest ? length : rest;
    if (cat) length = in_file > 0 ? in_file : 1, pause = 0;

    /* A mapping begins at a page of the file: round down, and add the rest. */
    const long long extra = offset % sysconf(_SC_PAGESIZE);
    char *page = mmap(NULL, extra + length, prot, flags, fd, offset - extra);
    if (page == MAP_FAILED) err(1, "%s: mmap of %lld bytes", path, length);
    char *text = page + extra;
    byte_0 = (uintptr_t)text - (uintptr_t)offset;
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    if (!cat)
        printf("byte %lld is at %p + %lld\n", offset, (void *)page, extra);
    if (pause) printf("[%d] Enter goes on\n", getpid());
    flush_stdout();
    if (pause) getchar();
    if (cat) {
        fwrite(text, 1, in_file, stdout);
    } else if (touched != -1) {
        touch(touched, writing);
    } else {
        if (string) printf("%s\n", text);
        if (!string) dump((unsigned char *)text, offset, in_file);
        edit(text, in_file, old, new);
    }
    flush_stdout();
}
