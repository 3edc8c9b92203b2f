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
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
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
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size != 0 && size != SIZE)
        errx(1, "%s: the size is not %d bytes; use another -file", path, SIZE);
    errno = posix_fallocate(fd, 0, SIZE);
    if (errno != 0) err(1, "%s: posix_fallocate", path);

    /* Without MAP_FIXED, the address would only be a hint. */
    void *place = mmap(text, SIZE, prot, flags, fd, 0);
    if (place == MAP_FAILED) err(1, "mmap over %p", (void *)text);
    if (place != text)
        errx(1, "mmap over %p: went elsewhere, to %p", (void *)text, place);
    if (text[SIZE - 1] != '\0')
        errx(1, "%s: persist did not write it; use another -file", path);

    /* No read(), no write(): the variable is the file. */
    if (writing)
        memcpy(text, input, SIZE);
    else
        printf("%.*s", SIZE, text);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The whole input is read before anything is changed. */
static void read_input(void)
{
    const size_t length = fread(input, 1, SIZE, stdin);
    if (ferror(stdin)) err(1, "stdin");
    if (length == SIZE) errx(1, "stdin: more than %d bytes", SIZE - 1);
    if (strlen(input) < length) errx(1, "stdin: it contains a zero byte");
}

static void parse_options(int argc, char *argv[])
{
    const char usage[] = "usage: persist [-read | -write] [-file=F]";
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
