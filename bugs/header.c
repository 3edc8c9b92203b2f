/* SPDX-License-Identifier: MIT */
/* Prints a file without its header of 8 bytes: ./bugs/header FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char *check(void *addr)
{
    if (addr == MAP_FAILED) err(1, "mmap");
    return addr;
}

int main(int argc, char *argv[])
{
    struct stat file;
    if (argc != 2) errx(2, "usage: header FILE");
    const int fd = open(argv[1], O_RDONLY);
    if (fd == -1 || fstat(fd, &file) == -1) err(1, "%s", argv[1]);
    char *text = check(mmap(NULL, file.st_size, PROT_READ, MAP_SHARED, fd, 8));
    if (write(STDOUT_FILENO, text, file.st_size - 8) == -1) err(1, "write");
    return 0;
}
