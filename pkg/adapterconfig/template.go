package adapterconfig

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	tparse "text/template/parse"
)

// tmpl is a template of text/template between << and >>. That package is only used to parse it: it calls methods by
// name, so the linker would keep every method of every type, and the server would be a third larger.
//
// Values are strings, booleans, numbers, []string, map[string]string and the data, a map[string]any. What
// rules have no use for is an error: methods, templates that use others, and functions that call does not
// know.
type tmpl struct {
	name string
	root *tparse.ListNode
}

func parseTemplate(name, text string) (*tmpl, error) {
	known := map[string]any{}
	for _, f := range []string{"and", "eq", "index", "len", "ne", "not", "or", "print", "printf", "println"} {
		known[f] = true
	}
	trees, err := tparse.Parse(name, text, "<<", ">>", known)
	if err != nil {
		return nil, err
	}
	t := &tmpl{name: name}
	if tree := trees[name]; tree != nil {
		t.root = tree.Root
	}
	return t, nil
}

// noValue is the value of a field that a map[string]string does not have.
type noValue struct{}

func (noValue) String() string { return "<no value>" }

var errBreak, errContinue = errors.New("break outside of range"), errors.New("continue outside of range")

// execution is the state of execute.
type execution struct {
	out  strings.Builder
	vars []variable // the innermost last
}

type variable struct {
	name  string
	value any
}

// execute fills in the template.
func (t *tmpl) execute(data map[string]any) (string, error) {
	e := &execution{vars: []variable{{"$", data}}}
	if t.root != nil {
		if err := e.walk(data, t.root); err != nil {
			return "", fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return e.out.String(), nil
}

// walk writes what a node says of dot.
func (e *execution) walk(dot any, node tparse.Node) error {
	switch n := node.(type) {
	case *tparse.ListNode:
		for _, child := range n.Nodes {
			if err := e.walk(dot, child); err != nil {
				return err
			}
		}
		return nil
	case *tparse.TextNode:
		e.out.Write(n.Text)
		return nil
	case *tparse.ActionNode:
		v, err := e.pipe(dot, n.Pipe)
		if err == nil && len(n.Pipe.Decl) == 0 {
			fmt.Fprint(&e.out, v)
		}
		return err
	case *tparse.IfNode:
		return e.branch(dot, &n.BranchNode, false)
	case *tparse.WithNode:
		return e.branch(dot, &n.BranchNode, true)
	case *tparse.RangeNode:
		return e.loop(dot, &n.BranchNode)
	case *tparse.BreakNode:
		return errBreak
	case *tparse.ContinueNode:
		return errContinue
	case *tparse.CommentNode:
		return nil
	}
	return fmt.Errorf("%s is not supported", node)
}

// branch walks one of the lists of an if or, with isWith, of a with.
func (e *execution) branch(dot any, n *tparse.BranchNode, isWith bool) error {
	defer e.forget(len(e.vars))
	v, err := e.pipe(dot, n.Pipe)
	switch {
	case err != nil:
		return err
	case !isTrue(v):
		return e.otherwise(dot, n)
	case isWith:
		dot = v
	}
	return e.walk(dot, n.List)
}

func (e *execution) otherwise(dot any, n *tparse.BranchNode) error {
	if n.ElseList == nil {
		return nil
	}
	return e.walk(dot, n.ElseList)
}

// loop walks the list of a range for each element.
func (e *execution) loop(dot any, n *tparse.BranchNode) error {
	defer e.forget(len(e.vars))
	declared := n.Pipe.Decl
	over := *n.Pipe
	over.Decl = nil
	v, err := e.pipe(dot, &over)
	if err != nil {
		return err
	}
	var keys, values []any
	switch v := v.(type) {
	case []string:
		for i, s := range v {
			keys, values = append(keys, i), append(values, s)
		}
	case map[string]string:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			keys, values = append(keys, k), append(values, v[k])
		}
	case noValue:
	default:
		return fmt.Errorf("range cannot iterate over %v", v)
	}
	if len(values) == 0 {
		return e.otherwise(dot, n)
	}
	outer := len(e.vars)
	for i, value := range values {
		e.forget(outer)
		switch len(declared) {
		case 1:
			e.declare(declared[0], value, n.Pipe.IsAssign)
		case 2:
			e.declare(declared[0], keys[i], n.Pipe.IsAssign)
			e.declare(declared[1], value, n.Pipe.IsAssign)
		}
		switch err := e.walk(value, n.List); {
		case errors.Is(err, errBreak):
			return nil
		case err != nil && !errors.Is(err, errContinue):
			return err
		}
	}
	return nil
}

// forget ends the variables that were declared after the first ones.
func (e *execution) forget(first int) { e.vars = e.vars[:first] }

// declare gives a variable a value: a new one, or one that there is already.
func (e *execution) declare(v *tparse.VariableNode, value any, isAssign bool) {
	if isAssign {
		for i := len(e.vars) - 1; i >= 0; i-- {
			if e.vars[i].name == v.Ident[0] {
				e.vars[i].value = value
				return
			}
		}
	}
	e.vars = append(e.vars, variable{v.Ident[0], value})
}

// pipe returns the value of commands, each of which has that of the one before as its last argument.
func (e *execution) pipe(dot any, p *tparse.PipeNode) (v any, err error) {
	var last []any
	for _, c := range p.Cmds {
		if v, err = e.command(dot, c, last); err != nil {
			return nil, err
		}
		last = []any{v}
	}
	for _, d := range p.Decl {
		e.declare(d, v, p.IsAssign)
	}
	return v, nil
}

// command returns the value of a command. last has the value of the one before, if there is one.
func (e *execution) command(dot any, c *tparse.CommandNode, last []any) (any, error) {
	f, isFunction := c.Args[0].(*tparse.IdentifierNode)
	if !isFunction {
		if len(c.Args) > 1 || len(last) > 0 {
			return nil, fmt.Errorf("at <%s>: it is not a function", c.Args[0])
		}
		return e.value(dot, c.Args[0])
	}
	var args []any
	for _, a := range c.Args[1:] {
		v, err := e.value(dot, a)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	v, err := call(f.Ident, append(args, last...))
	if err != nil {
		return nil, fmt.Errorf("at <%s>: %w", c, err)
	}
	return v, nil
}

func (e *execution) value(dot any, node tparse.Node) (any, error) {
	switch n := node.(type) {
	case *tparse.DotNode:
		return dot, nil
	case *tparse.FieldNode:
		return fieldsOf(dot, n.Ident)
	case *tparse.VariableNode:
		for _, v := range slices.Backward(e.vars) {
			if v.name == n.Ident[0] {
				return fieldsOf(v.value, n.Ident[1:])
			}
		}
	case *tparse.ChainNode:
		v, err := e.value(dot, n.Node)
		if err != nil {
			return nil, err
		}
		return fieldsOf(v, n.Field)
	case *tparse.PipeNode:
		return e.pipe(dot, n)
	case *tparse.IdentifierNode:
		return call(n.Ident, nil)
	case *tparse.StringNode:
		return n.Text, nil
	case *tparse.BoolNode:
		return n.True, nil
	case *tparse.NumberNode:
		switch {
		case n.IsInt:
			return int(n.Int64), nil
		case n.IsFloat:
			return n.Float64, nil
		}
	}
	return nil, fmt.Errorf("at <%s>: it is not supported", node)
}

// fieldsOf returns the value of a field of a field and so on of v.
func fieldsOf(v any, names []string) (any, error) {
	for _, name := range names {
		switch of := v.(type) {
		case map[string]any:
			found, ok := of[name]
			if !ok {
				return nil, fmt.Errorf("at <.%s>: can't evaluate field %s", strings.Join(names, "."), name)
			}
			v = found
		case map[string]string:
			if found, ok := of[name]; ok {
				v = found
			} else {
				v = noValue{}
			}
		default:
			return nil, fmt.Errorf("at <.%s>: can't evaluate field %s", strings.Join(names, "."), name)
		}
	}
	return v, nil
}

// call returns the result of a function of text/template. and and or have all of their arguments evaluated.
func call(name string, args []any) (any, error) {
	least := map[string]int{"and": 1, "eq": 2, "index": 1, "len": 1, "ne": 2, "not": 1, "or": 1, "printf": 1}[name]
	if len(args) < least {
		return nil, fmt.Errorf("%s needs more arguments", name)
	}
	switch name {
	case "and", "or":
		for _, v := range args {
			if isTrue(v) == (name == "or") {
				return v, nil
			}
		}
		return args[len(args)-1], nil
	case "not":
		return !isTrue(args[0]), nil
	case "eq":
		text := func(v any) string { return fmt.Sprintf("%T %v", v, v) } // lists and maps cannot be compared by ==
		return slices.ContainsFunc(args[1:], func(v any) bool { return text(v) == text(args[0]) }), nil
	case "ne":
		equal, err := call("eq", args[:2])
		return equal == false, err
	case "len":
		switch v := args[0].(type) {
		case string:
			return len(v), nil
		case []string:
			return len(v), nil
		case map[string]string:
			return len(v), nil
		}
		return nil, fmt.Errorf("len of %v", args[0])
	case "index":
		return indexOf(args[0], args[1:])
	case "print":
		return fmt.Sprint(args...), nil
	case "println":
		return fmt.Sprintln(args...), nil
	case "printf":
		format, ok := args[0].(string)
		if !ok {
			return nil, errors.New("the format of printf is not a string")
		}
		return fmt.Sprintf(format, args[1:]...), nil
	}
	return nil, fmt.Errorf("function %q is not defined", name)
}

// indexOf returns the element of v with a key; v itself without one.
func indexOf(v any, keys []any) (any, error) {
	for _, key := range keys {
		switch of := v.(type) {
		case map[string]string:
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("%v is not the name of a label", key)
			}
			v = of[name]
		case []string:
			i, ok := key.(int)
			if !ok || i < 0 || i >= len(of) {
				return nil, fmt.Errorf("there is no element %v", key)
			}
			v = of[i]
		default:
			return nil, fmt.Errorf("%v has no elements", v)
		}
	}
	return v, nil
}

func isTrue(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		return v != ""
	case int:
		return v != 0
	case float64:
		return v != 0
	case []string:
		return len(v) > 0
	case map[string]string:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return false
}
