/* SPDX-License-Identifier: MIT */
/* Counts the lines of a text file: ./bugs/string FILE */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

int main(int argc, char *argv[])
{
    struct stat file;
    if (argc != 2) errx(2, "usage: string FILE");
    const int fd = open(argv[1], O_RDONLY);
    if (fd == -1 || fstat(fd, &file) == -1) err(1, "%s", argv[1]);
    const size_t length = file.st_size + 1; /* and the \0 */
    char *text = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (text == MAP_FAILED) err(1, "%s: mmap", argv[1]);
    int lines = 0;
    for (size_t i = 0; text[i] != '\0'; i++)
        if (text[i] == '\n') lines++;
    printf("%d lines\n", lines);
    return 0;
}
