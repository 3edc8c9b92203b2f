/* SPDX-License-Identifier: MIT */
/*
 * fixed: three ways to ask mmap() for an address that is taken.
 *
 *     +- a page --------------------------------------------+
 *     | variable, 32 bytes | neighbour, 32 bytes | the rest |
 *     +-----------------------------------------------------+
 *     mmap(variable, 32, ...)
 *
 *     ./extra/fixed                the address is a hint
 *     ./extra/fixed -noreplace     MAP_FIXED_NOREPLACE: there, or not at all
 *     ./extra/fixed -clobber       MAP_FIXED: there, whatever it replaces
 *
 * mmap(2), which calls MAP_FIXED dangerous
 */
#define _GNU_SOURCE
#include <err.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_PRIVATE | MAP_ANONYMOUS;
static int fixed; /* 0, MAP_FIXED_NOREPLACE or MAP_FIXED */

/* The struct fills whole pages, so that MAP_FIXED destroys nothing else. */
enum { SIZE = 65536 };
static _Alignas(SIZE) struct {
    char variable[32];
    char neighbour[32];
    char rest[SIZE - 64];
} page = {"I am mapped over", "I only live next door", ""};

static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);

    printf("before: \"%s\", \"%s\"\n", page.variable, page.neighbour);
    void *place = mmap(page.variable, 32, prot, flags | fixed, -1, 0);
    if (place == MAP_FAILED) err(1, "mmap over %p", (void *)page.variable);
    printf("after:  \"%s\", \"%s\"\n", page.variable, page.neighbour);
    printf("asked for 32 bytes at %p, got a page of %ld bytes at %p\n",
           (void *)page.variable, sysconf(_SC_PAGESIZE), place);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void parse_options(int argc, char *argv[])
{
    static const char usage[] = "usage: fixed [-noreplace | -clobber]";
    const struct option options[] = {
        {"clobber", no_argument, &fixed, MAP_FIXED},
        {"noreplace", no_argument, &fixed, MAP_FIXED_NOREPLACE},
        {NULL, 0, NULL, 0}};
    int option = 0;
    while (option != -1) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
    }
    if (optind < argc) errx(2, "%s", usage);
}
