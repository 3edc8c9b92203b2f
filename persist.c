/* SPDX-License-Identifier: MIT */
/*
 * persist: a variable that outlives the program, by MAP_FIXED.
 *
 *     memory before   | code | data |   text   | more data |
 *     memory after    | code | data | the file | more data |
 *
 *     echo hi | ./persist -write
 *     ./persist -read
 *
 * mmap(2), which calls MAP_FIXED dangerous
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED | MAP_FIXED;
static const char *path = ".persistent_data";
static int writing;

/* MAP_FIXED replaces whole pages, so the variable consists of whole pages. A
   page has 4 KiB on most machines and 64 KiB on some. */
enum { SIZE = 65536 };
static _Alignas(SIZE) char text[SIZE] = "the initial value";
static char input[SIZE];

static void read_input(void);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    if (writing) read_input();

    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", path);
    if (flock(fd, LOCK_EX) == -1) err(1, "%s: flock", path);
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size != 0 && size != SIZE)
        errx(1, "%s: not %d bytes long; use another -file", path, SIZE);
    const int error = posix_fallocate(fd, 0, SIZE);
    if (error != 0) errx(1, "%s: %s", path, strerror(error));

    /* Without MAP_FIXED, the address would only be a hint. */
    void *place = mmap(text, SIZE, prot, flags, fd, 0);
    if (place == MAP_FAILED) err(1, "mmap over %p", (void *)text);
    if (place != text) errx(1, "the mapping went elsewhere, to %p", place);

    /* After the text there are only zeros, so each byte equals the next. */
    const size_t length = strnlen(text, SIZE - 1);
    const char *zeros = text + length;
    if (*zeros != '\0' || memcmp(zeros, zeros + 1, SIZE - length - 1) != 0)
        errx(1, "%s: not written by persist; use another -file", path);

    /* The variable is the file, so this needs no read() and no write(). The old
       text is removed from its end, so a killed run leaves a text and zeros. */
    if (writing) {
        volatile char *byte = text; /* keeps the order of these stores */
        for (size_t i = length; i > 0; i--) byte[i - 1] = '\0';
        for (size_t i = 0; input[i] != '\0'; i++) byte[i] = input[i];
    } else {
        printf("%s", text);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* Reads the whole input, before main() changes anything. */
static void read_input(void)
{
    const size_t length = fread(input, 1, SIZE, stdin);
    if (ferror(stdin)) err(1, "stdin");
    if (length == SIZE || strlen(input) != length)
        errx(1, "stdin: not a text of at most %d bytes", SIZE - 1);
}

static void parse_options(int argc, char *argv[])
{
    static const char usage[] = "usage: persist [-read | -write] [-file=F]";
    const struct option options[] = {{"file", required_argument, NULL, 'f'},
                                     {"read", no_argument, &writing, 0},
                                     {"write", no_argument, &writing, 1},
                                     {NULL, 0, NULL, 0}};
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == 'f') path = optarg;
        if (option == '?') errx(2, "%s", usage);
    }
    if (optind < argc) errx(2, "%s", usage);
}
