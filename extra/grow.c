/* SPDX-License-Identifier: MIT */
/*
 * grow: map a file once, and make it longer afterwards.
 *
 *     the mapping  | page 0 | page 1 | page 2 |  ...  | page 15 |
 *     the file     |X       |X       |   each Enter adds a page and an X
 *
 *     ./extra/grow /tmp/grow.bin
 *     truncate -s 0 /tmp/grow.bin              in another terminal
 *
 * mmap(2), ftruncate(2), posix_fallocate(3)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 16 };

int main(int argc, char *argv[])
{
    if (argc != 2 || *argv[1] == '-') errx(2, "usage: grow FILE");
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */
    const int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", argv[1]);

    /* Accept only an empty file, or one that an earlier run has written. */
    const long page = sysconf(_SC_PAGESIZE);
    long size = lseek(fd, 0, SEEK_END);
    char first = '\0';
    if (pread(fd, &first, 1, 0) == -1) err(1, "%s", argv[1]);
    if (size % page != 0 || (first != '\0' && first != 'X'))
        errx(1, "%s: not written by grow; use another file", argv[1]);

    const int prot = PROT_READ | PROT_WRITE;
    char *pages = mmap(NULL, PAGES * page, prot, MAP_SHARED, fd, 0);
    if (pages == MAP_FAILED) err(1, "%s: mmap", argv[1]);
    printf("the file has %ld bytes, ", size);
    printf("%d pages are mapped at %p\n", PAGES, (void *)pages);

    for (long n = size / page; n < PAGES; n++) {
        puts("press Enter to add a page");
        getchar();
        size = lseek(fd, 0, SEEK_END) + page;
        if (ftruncate(fd, size) == -1) err(1, "%s: ftruncate", argv[1]);
        pages[n * page] = 'X';
        printf("the file has %ld bytes, ", size);
        printf("page %ld has an X at %p\n", n, (void *)&pages[n * page]);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}
